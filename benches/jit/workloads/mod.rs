//! What is measured, for any subject.

pub mod buffer;
pub mod cache;
pub mod checkerboard;
pub mod churn;
pub mod publish;
pub mod query;
pub mod shrink;
pub mod threads;
