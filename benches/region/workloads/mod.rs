//! What is measured, for any space.

pub mod churn;
pub mod edit;
pub mod iterate;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod query;
