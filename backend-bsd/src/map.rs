//! The process map: `sysctl(3)` `kern.proc.vmmap`.
