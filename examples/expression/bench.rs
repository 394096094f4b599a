//! Many random expressions at once: compiled, compared with the interpreter, half of them released.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use hostmem::jit::JitStatistics;

use crate::{
    ast::{Expression, Type, Value},
    compile,
    interpret::interpret,
    print::print,
    random::{Random, random_expression, random_values},
    runner::{Program, Runner},
    typing::TypedExpr,
};

/// A random expression in executable memory.
struct Case {
    expression: Expression,
    values: Vec<Value>,
    kind: Type,
    program: Program,
}

/// Compiles `count` expressions, checks each against the interpreter, releases half, checks that
/// the other half still runs, and prints what it took.
pub fn bench(count: usize, seed: u64) -> Result<(), Box<dyn Error>> {
    let runner = Runner::new()?;
    let mut random = Random::new(seed);
    let mut cases = Vec::with_capacity(count);
    let (mut compiling, mut placing, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..count {
        let expression = random_expression(&mut random);
        let values = random_values(&mut random, expression.variables.len());
        let kinds: Vec<Type> = values.iter().map(|value| value.kind()).collect();
        let start = Instant::now();
        let typed = TypedExpr::new(&expression, &kinds);
        let code = compile::compile(&typed)?;
        compiling += start.elapsed();
        bytes += code.len();
        let start = Instant::now();
        let program = runner.load(&code)?;
        placing += start.elapsed();
        cases.push(Case {
            kind: typed.kind(),
            expression,
            values,
            program,
        });
    }
    check(&runner, &cases)?;
    println!("{count} expressions (seed {seed}), {bytes} bytes of code, all as interpreted");
    let each = |total: Duration| total / u32::try_from(count).unwrap_or(u32::MAX);
    println!(
        "compiled in {:?} each, placed in {:?} each",
        each(compiling),
        each(placing)
    );
    report("all", runner.statistics());
    let kept = release_half(&runner, cases)?;
    check(&runner, &kept)?;
    report("half released", runner.statistics());
    for case in kept {
        runner.release(case.program)?;
    }
    report("all released", runner.statistics());
    Ok(())
}

/// Compares every program with the interpreter.
fn check(runner: &Runner, cases: &[Case]) -> Result<(), Box<dyn Error>> {
    for Case {
        expression,
        values,
        kind,
        program,
    } in cases
    {
        let bits: Vec<u64> = values.iter().map(|value| value.bits()).collect();
        // SAFETY: loaded from what the compiler made of this expression, with its variables.
        let (status, result) = unsafe { runner.call(program, &bits) };
        let compiled = compile::outcome(status, result, *kind);
        let interpreted = interpret(expression, values);
        let same = match (compiled, interpreted) {
            (Ok(a), Ok(b)) => a.same(b),
            (a, b) => a == b,
        };
        if !same {
            let text = print(expression);
            return Err(format!("{compiled:?}, not {interpreted:?}: {text}").into());
        }
        if !runner.finds(program) {
            return Err(format!("the allocator does not find {:?}", program.span()).into());
        }
    }
    Ok(())
}

/// Releases every second program and returns the others.
fn release_half(runner: &Runner, cases: Vec<Case>) -> Result<Vec<Case>, Box<dyn Error>> {
    let mut kept = Vec::with_capacity(cases.len() / 2 + 1);
    for (n, case) in cases.into_iter().enumerate() {
        if n % 2 == 0 {
            runner.release(case.program)?;
        } else {
            kept.push(case);
        }
    }
    Ok(kept)
}

fn report(when: &str, statistics: JitStatistics) {
    let JitStatistics {
        blocks,
        spans,
        used,
        reserved,
        metadata,
        ..
    } = statistics;
    println!(
        "{when:>14}: {spans} spans in {blocks} blocks, {used} of {reserved} bytes used, \
         {metadata} bytes of metadata"
    );
}
