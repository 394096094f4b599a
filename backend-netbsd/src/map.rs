//! The process map: `sysctl(3)` `VM_PROC_MAP`.
