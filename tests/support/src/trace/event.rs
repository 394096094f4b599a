//! What the tracer records.

use crate::maps::Mapping;

/// Names an address space, from its making by `execve` or `fork` to its end.
///
/// Threads share one, and so does a child of `vfork` until it executes a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Space(pub u64);

/// Holds the six arguments of a system call.
pub type Arguments = [u64; 6];

/// Describes one observation.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process executed a program.
    Exec {
        /// The process.
        pid: libc::pid_t,
        /// Its new address space.
        space: Space,
        /// The mappings that the kernel made for the program.
        mappings: Vec<Mapping>,
        /// The process has the personality `READ_IMPLIES_EXEC`.
        read_implies_exec: bool,
    },
    /// A process was made with a copy of an address space.
    Fork {
        /// The new process.
        pid: libc::pid_t,
        /// The address space copied; none if its process was killed before it could be told.
        from: Option<Space>,
        /// The copy.
        space: Space,
    },
    /// A system call returned, or was refused by the plan.
    Call(Call),
    /// The last thread in an address space ended.
    End {
        /// The address space.
        space: Space,
    },
}

/// Describes one system call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The process that made it.
    pub pid: libc::pid_t,
    /// The thread that made it.
    pub tid: libc::pid_t,
    /// The address space in which it was made.
    pub space: Space,
    /// Its number: `libc::SYS_*`.
    pub number: libc::c_long,
    /// Its arguments.
    pub args: Arguments,
    /// What it returned; an error as the negative errno.
    pub result: i64,
    /// The plan refused it: it did not happen.
    pub injected: bool,
    /// The mappings that it left behind, where arguments and result do not tell: of `shmat`, and of
    /// an `mprotect` that failed, maybe half-way.
    pub left: Vec<Mapping>,
}

impl Call {
    /// Returns the name of the system call.
    pub fn name(&self) -> &'static str {
        name(self.number)
    }

    /// Returns the errno of a call that failed.
    pub fn errno(&self) -> Option<i32> {
        // The last page of addresses is the kernel's range of errors, whatever the call.
        let errno = self
            .result
            .checked_neg()
            .filter(|e| (1..=4095).contains(e))?;
        i32::try_from(errno).ok()
    }

    /// Says whether the call asks for memory that is writable and executable at once, granted or
    /// not.
    pub fn asks_write_and_exec(&self) -> bool {
        let prot = match self.number {
            libc::SYS_mmap | libc::SYS_mprotect | libc::SYS_pkey_mprotect => self.args[2],
            _ => return false,
        };
        let both = u64::from((libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned());
        prot & both == both
    }
}

/// Returns the name of a system call of [`MAPPING_CALLS`](super::MAPPING_CALLS), else `"other"`.
pub fn name(number: libc::c_long) -> &'static str {
    match number {
        libc::SYS_mmap => "mmap",
        libc::SYS_mprotect => "mprotect",
        libc::SYS_pkey_mprotect => "pkey_mprotect",
        libc::SYS_mremap => "mremap",
        libc::SYS_munmap => "munmap",
        libc::SYS_shmat => "shmat",
        libc::SYS_shmdt => "shmdt",
        libc::SYS_memfd_create => "memfd_create",
        libc::SYS_madvise => "madvise",
        libc::SYS_remap_file_pages => "remap_file_pages",
        libc::SYS_personality => "personality",
        _ => "other",
    }
}
