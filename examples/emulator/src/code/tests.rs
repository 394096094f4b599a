//! Generated code beside the interpreter: random instructions leave equal registers and memory.

use super::{BUDGET, Code, Cpu, Runner};
use crate::{
    access::Identity,
    cli::Options,
    decode::decode,
    elf::Protection,
    faults,
    host::{self, Host},
    inst::Op,
    interpret::{Hart, Trap, UNRESERVED, decode_at, step},
    machine::{Machine, Mutex, lock},
    space::{Content, Mapping, PAGE, Place, Space},
    syscalls::files::Files,
};
use hostmem::page::AddressRange;
use std::sync::{Arc, OnceLock};

const CODE: u32 = 0x10_0000;
const DATA: u32 = 0x20_0000;
const DATA_LEN: u32 = 2 * PAGE;
/// Registers that hold the middle of the data, with and without a home in a register of the host.
const BASES: [u32; 2] = [3, 8];
/// The register that counts how often a sequence runs.
const COUNTER: u32 = 31;
/// Fewer steps than a sequence can take that never ends.
const MOST_STEPS: u32 = 1_000_000;

/// Says whether the host is emulated, which takes twenty times as long.
fn is_emulated() -> bool {
    std::env::var_os("HOSTMEM_EMULATED").is_some()
}

/// Tests that run guest code take turns: they share its addresses.
static TURN: Mutex<()> = Mutex::new(());

fn machine() -> &'static Machine {
    static MACHINE: OnceLock<&'static Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let host = Host::claim().expect("addresses");
        let space = Space::new(host.region, &host.guest, host::low_heap_window(), None);
        let space = space.expect("a space");
        faults::install();
        let code = Code::new(host.region, BUDGET, None).expect("memory for code");
        let options = Options::parse(std::iter::empty()).expect("no options");
        let files = Files::new(b".").expect("a folder");
        for addr in [CODE, DATA] {
            let protection = Protection::READ_WRITE;
            let range = Space::around(addr, DATA_LEN).expect("guest addresses");
            let content = Content::Anonymous;
            let mapping = Mapping {
                content,
                protection,
            };
            let mapped = space.map(Place::Free(range), mapping, None);
            mapped.expect("free addresses");
        }
        Machine::install(options, host, space, files, Some(code), 0)
    })
}

fn runner(machine: &'static Machine) -> Runner {
    faults::prepare_thread(machine.host.region).expect("a stack");
    let code = machine.code.as_ref().expect("it translates");
    code.runner(Arc::new(Cpu::new())).expect("a thread")
}

/// Numbers that depend on a seed alone: xorshift, by Marsaglia.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [_, _, a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        let at = self.below(u32::try_from(list.len()).expect("a short list"));
        list[at as usize]
    }

    /// A register that may be written.
    fn destination(&mut self) -> u32 {
        loop {
            let register = self.below(32);
            if register != COUNTER && !BASES.contains(&register) {
                return register;
            }
        }
    }

    /// A register with an address: of data, most often.
    fn base(&mut self) -> u32 {
        if self.below(64) == 0 {
            self.below(32)
        } else {
            self.of(&BASES)
        }
    }

    fn value(&mut self) -> u32 {
        match self.below(6) {
            0 => self.of(&[0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff]),
            1 => self.below(64),
            2 => DATA + self.below(DATA_LEN),
            _ => self.next(),
        }
    }

    /// Appends an instruction, or a jump over some.
    fn instruction(&mut self, code: &mut Vec<u8>) {
        let (rd, rs1, rs2) = (self.destination(), self.below(32), self.below(32));
        let fields = |funct7: u32, funct3: u32, opcode: u32| {
            funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
        };
        let bits = match self.below(16) {
            0..=3 => {
                let funct3 = self.below(8);
                let funct7 = match funct3 {
                    0 | 5 => self.of(&[0, 0x20, 1]),
                    _ => self.of(&[0, 1]),
                };
                fields(funct7, funct3, 0x33)
            }
            4 | 5 => {
                let funct3 = self.below(8);
                let imm = match funct3 {
                    1 => self.below(32),
                    5 => self.below(32) | self.of(&[0, 0x400]),
                    _ => self.below(4096),
                };
                imm << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | 0x13
            }
            6 => self.next() & 0xffff_f000 | rd << 7 | self.of(&[0x37, 0x17]),
            7 | 8 => {
                let (base, imm) = (self.base(), self.below(4096));
                let funct3 = self.of(&[0, 1, 2, 4, 5]);
                imm << 20 | base << 15 | funct3 << 12 | rd << 7 | 0x03
            }
            9 => {
                let (base, imm) = (self.base(), self.below(4096));
                let funct3 = self.below(3);
                let imm = (imm >> 5) << 25 | (imm & 31) << 7;
                imm | rs2 << 20 | base << 15 | funct3 << 12 | 0x23
            }
            10 | 11 => {
                let base = self.base();
                let funct5 = self.of(&[2, 3, 3, 1, 0, 4, 12, 8, 16, 20, 24, 28]);
                let rs2 = if funct5 == 2 { 0 } else { rs2 };
                let order = self.below(4);
                let bits = base << 15 | 2 << 12 | rd << 7 | 0x2f | order << 25;
                if funct5 == 2 && self.below(2) == 0 {
                    // What is reserved is stored to, with something between that may end it.
                    code.extend((2 << 27 | bits).to_le_bytes());
                    for _ in 0..self.below(3) {
                        self.instruction(code);
                    }
                    let (rd, rs2) = (self.destination(), self.below(32));
                    3 << 27 | rs2 << 20 | (bits & !(31 << 7)) | rd << 7
                } else {
                    funct5 << 27 | rs2 << 20 | bits
                }
            }
            12 | 13 => {
                let half = self.compressed();
                code.extend(half.to_le_bytes());
                return;
            }
            14 => {
                let mut body = Vec::new();
                for _ in 0..=self.below(3) {
                    self.instruction(&mut body);
                }
                let imm = u32::try_from(body.len() + 4).expect("short");
                if imm < 2048 {
                    let funct3 = self.of(&[0, 1, 4, 5, 6, 7]);
                    let imm = (imm >> 5 & 63) << 25 | (imm >> 1 & 15) << 8 | (imm >> 11) << 7;
                    let branch = imm | rs2 << 20 | rs1 << 15 | funct3 << 12 | 0x63;
                    code.extend(branch.to_le_bytes());
                }
                code.extend(body);
                return;
            }
            _ => match self.below(3) {
                0 => self.below(256) << 20 | 0x0f,
                1 => 8 << 20 | rd << 7 | 0x6f, // jal over one instruction
                _ => 0x13,
            },
        };
        code.extend(bits.to_le_bytes());
        if bits & 0x7f == 0x6f {
            code.extend(0x13_u32.to_le_bytes());
        }
    }

    /// Returns a compressed instruction that stays in line and writes what may be written.
    fn compressed(&mut self) -> u16 {
        loop {
            let [low, high, ..] = self.next().to_le_bytes();
            let half = u16::from_le_bytes([low, high]);
            let Some(inst) = decode(half.into()).filter(|_| half & 3 != 3) else {
                continue;
            };
            let rd = u32::from(inst.rd);
            let straight = !inst.ends_block() && inst.op != Op::Jal;
            let memory = matches!(inst.op, Op::Lw | Op::Sw);
            let safe = !memory || BASES.contains(&inst.rs1.into()) || self.below(32) == 0;
            if straight && safe && rd != COUNTER && !BASES.contains(&rd) {
                return half;
            }
        }
    }
}

/// Everything that a run leaves behind.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    trap: Trap,
    hart: Hart,
    data: Vec<u8>,
}

fn outcome(trap: Trap, mut hart: Hart) -> Outcome {
    // It does not outlast a trap.
    hart.reserved = UNRESERVED;
    let mut data = vec![0; DATA_LEN as usize];
    Identity.read(DATA, &mut data).expect("mapped");
    Outcome { trap, hart, data }
}

fn interpret(space: &Space, mut hart: Hart) -> Outcome {
    for _ in 0..MOST_STEPS {
        let pc = hart.pc;
        let done = decode_at(space, pc).and_then(|inst| step(&mut hart, &Identity, &inst, pc));
        match done {
            Ok(next) => hart.pc = next,
            Err(trap) => return outcome(trap, hart),
        }
    }
    panic!("the sequence does not end");
}

fn compare(machine: &'static Machine, runner: &Runner, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut code = Vec::new();
    for _ in 0..1 + random.below(40) {
        random.instruction(&mut code);
    }
    // addi x31, x31, -1; bne x31, x0, start; ecall
    code.extend(0xffff_8f93_u32.to_le_bytes());
    let back = u32::try_from(code.len()).expect("short").wrapping_neg();
    let imm = (back >> 12 & 1) << 31
        | (back >> 5 & 63) << 25
        | (back >> 1 & 15) << 8
        | (back >> 11 & 1) << 7;
    code.extend((imm | COUNTER << 15 | 1 << 12 | 0x63).to_le_bytes());
    code.extend(0x73_u32.to_le_bytes());

    let mut data = vec![0; DATA_LEN as usize];
    for word in data.chunks_mut(4) {
        word.copy_from_slice(&random.value().to_le_bytes());
    }
    let mut hart = Hart::new(CODE);
    for register in &mut hart.x[1..] {
        *register = random.value();
    }
    for base in BASES {
        hart.x[base as usize] = DATA + PAGE;
    }
    hart.x[2] = DATA + 256;
    hart.x[COUNTER as usize] = 1 + random.below(4);

    // What writes to itself without saying so may go on either way, so that code cannot be written.
    let range = Space::around(CODE, DATA_LEN).expect("guest addresses");
    let set = |protection| machine.space.protect(range, protection).expect("mapped");
    set(Protection::READ_WRITE);
    Identity.write(CODE, &code).expect("mapped");
    set(Protection::READ_EXECUTE);
    machine.invalidate(range);
    Identity.write(DATA, &data).expect("mapped");
    let expected = interpret(&machine.space, hart.clone());
    Identity.write(DATA, &data).expect("mapped");
    runner
        .cpu
        .interrupt
        .store(0, std::sync::atomic::Ordering::Relaxed);
    let trap = runner.run(&mut hart, &machine.space);
    let found = outcome(trap, hart);
    let texts = code.chunks(4).map(|word| format!("{word:02x?}"));
    assert!(
        found == expected,
        "seed {seed}: {:?} {:x?}, expected {:?} {:x?}; code {:?}",
        found.trap,
        found.hart,
        expected.trap,
        expected.hart,
        texts.collect::<Vec<_>>()
    );
}

#[test]
fn random_instructions_do_what_the_interpreter_does() {
    let _turn = lock(&TURN);
    let machine = machine();
    let runner = runner(machine);
    let first = std::env::var("EMULATOR_SEED").ok();
    match first.and_then(|seed| seed.parse().ok()) {
        Some(seed) => compare(machine, &runner, seed),
        None => {
            let count = if is_emulated() { 1_000 } else { 20_000 };
            (0..count).for_each(|seed| compare(machine, &runner, seed));
        }
    }
}

/// Code that came and went leaves nothing: neither blocks nor memory that grows with their number.
#[test]
fn blocks_that_go_leave_nothing() {
    let _turn = lock(&TURN);
    let machine = machine();
    let runner = runner(machine);
    let code = machine.code.as_ref().expect("it translates");
    let range = Space::around(CODE, DATA_LEN).expect("guest addresses");
    let all = Protection {
        read: true,
        write: true,
        execute: true,
    };
    machine.space.protect(range, all).expect("mapped");
    // li a0, n; ecall
    let mut reserved = None;
    let half: u32 = if is_emulated() { 5_000 } else { 100_000 };
    for n in 0..2 * half {
        let bits = (n % 2048) << 20 | 0x513;
        Identity.write(CODE, &bits.to_le_bytes()).expect("mapped");
        Identity.write(CODE + 4, &[0x73, 0, 0, 0]).expect("mapped");
        code.invalidate(AddressRange::from_len(CODE as usize, 8).expect("some"));
        let mut hart = Hart::new(CODE);
        runner
            .cpu
            .interrupt
            .store(0, std::sync::atomic::Ordering::Relaxed);
        let trap = runner.run(&mut hart, &machine.space);
        assert_eq!((trap, hart.x[10]), (Trap::Ecall, n % 2048));
        if n == half {
            reserved = Some(code.queue.allocator().statistics().reserved);
        }
    }
    let statistics = code.queue.allocator().statistics();
    assert_eq!(Some(statistics.reserved), reserved);
    code.invalidate(range);
    assert_eq!(
        (code.counts().live_blocks, code.counts().live_bytes),
        (0, 0)
    );
}
