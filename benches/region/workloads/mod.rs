//! What is measured, for any space.

pub mod churn;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod query;
