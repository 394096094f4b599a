//! What runs on the mallocs: the programs in `../c`, which are compiled here, and some of the
//! system.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// A program, in a folder of its own.
pub struct Program {
    /// Its name in rows.
    pub name: &'static str,
    /// What is run.
    words: Vec<String>,
    folder: PathBuf,
}

impl Program {
    /// Returns the command that runs it.
    pub fn command(&self) -> Command {
        let (first, rest) = self.words.split_first().expect("a program has a name");
        let mut command = Command::new(first);
        command.args(rest).current_dir(&self.folder);
        // Small objects of Python come from its own allocator otherwise.
        command.env("PYTHONMALLOC", "malloc").env("LC_ALL", "C");
        command
    }
}

/// The programs in `../c`.
pub const OWN: [&str; 8] = [
    "larson", "cross", "batches", "aligned", "bignum", "strings", "large", "pipeline",
];

/// Programs of the system.
pub const SYSTEM: [&str; 5] = ["python", "gcc", "clang", "perl", "sqlite"];

/// Compiles a program in `../c` into a folder, with more arguments behind its source.
pub fn compile(name: &str, folder: &Path, to: &str, arguments: &[&str]) -> io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("c/{name}.c"));
    let program = folder.join(to);
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-pthread", "-o"]).arg(&program).arg(source);
    let status = cc.args(arguments).status()?;
    if status.success() {
        Ok(program)
    } else {
        Err(io::Error::other(format!("{cc:?}: {status}")))
    }
}

/// Returns a program by its name; `share` is how many hundredths of its work it is to do.
pub fn make(name: &'static str, folder: &Path, share: usize) -> io::Result<Program> {
    let mut words = Vec::new();
    let mut say = |all: &[&str]| words.extend(all.iter().map(|word| String::from(*word)));
    match name {
        "python" => {
            let rounds = share.div_ceil(4);
            fs::write(folder.join("main.py"), PYTHON)?;
            let rounds = rounds.to_string();
            say(&[python(), "main.py", &rounds]);
        }
        "gcc" | "clang" => {
            let source = folder.join("main.c");
            fs::write(&source, c_source(share * 12))?;
            say(&[name, "-O2", "-S", "-o", "/dev/null", "main.c"]);
        }
        "perl" => {
            fs::write(folder.join("main.pl"), PERL)?;
            let rounds = share.div_ceil(10).to_string();
            say(&["perl", "main.pl", &rounds]);
        }
        "sqlite" => {
            fs::write(folder.join("main.sql"), sql(share * 3000))?;
            say(&["sqlite3", ":memory:", ".read main.sql"]);
        }
        own => {
            let program = compile(own, folder, own, &[])?;
            say(&[&program.display().to_string(), &share.to_string()]);
        }
    }
    let folder = folder.to_path_buf();
    Ok(Program {
        name,
        words,
        folder,
    })
}

/// Returns Python itself, and not a script that starts it.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}

/// Trees of objects, texts that are made and read, and words that are counted.
const PYTHON: &str = r#"
import json, re, sys
for number in range(int(sys.argv[1])):
    data = {str(n): [{"name": f"item {n * k}", "size": n * k, "tags": ["a", "b", str(k)]}
                     for k in range(n % 12)] for n in range(3000)}
    text = json.dumps(data, indent=1)
    assert json.loads(text) == data
    counts = {}
    for word in re.findall(r"[a-z]+|\d+", text):
        counts[word] = counts.get(word, 0) + 1
    lines = sorted(text.split("\n"), key=len)
    joined = "\n".join(line.strip().upper() for line in lines)
print(len(joined), len(counts))
"#;

/// Hashes, lists, texts that are cut and joined.
const PERL: &str = r#"
my ($rounds, $sum) = ($ARGV[0], 0);
for my $round (1 .. $rounds) {
    my (%words, @lists);
    for my $n (1 .. 60000) {
        my $word = "word" . ($n * 7919 % 20011);
        $words{$word} .= chr(97 + $n % 26) x ($n % 17);
        push @{$lists[$n % 500]}, $word, $n;
    }
    my $text = join ",", map { "$_=$words{$_}" } sort keys %words;
    $text =~ s/([aeiou])(\w)/$2$1/g;
    $sum += length($text) + scalar(split /,/, $text);
    delete $words{$_} for grep { length($words{$_}) % 3 } keys %words;
    $sum += keys %words;
}
print "$sum\n";
"#;

/// Functions enough for a compiler to have something to do.
fn c_source(functions: usize) -> String {
    let mut text = String::from("#include <stddef.h>\nstruct s { int a[16]; struct s *next; };\n");
    for n in 0..functions {
        text += &format!(
            "int f{n}(struct s *s, const char *t, size_t len) {{\n\
             int sum = {n};\n\
             for (size_t i = 0; i < len; i++) {{\n\
             switch (t[i] % {}) {{\n\
             case 0: sum += s->a[i % 16] * {}; break;\n\
             case 1: sum ^= t[i] << (i % 7); break;\n\
             case 2: if (s->next) sum -= s->next->a[(i + {n}) % 16]; break;\n\
             default: for (int k = 0; k < t[i]; k++) sum += s->a[k % 16] / (k + 1); }}\n\
             s = s->next ? s->next : s; }}\n\
             return sum{}; }}\n",
            3 + n % 5,
            n % 11 + 1,
            if n > 0 {
                format!(" + f{}(s, t, len / 2)", n - 1)
            } else {
                String::new()
            },
        );
    }
    text
}

/// A table that is filled, indexed, changed and joined with itself.
fn sql(rows: usize) -> String {
    format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, number REAL);\n\
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows})\n\
         INSERT INTO t SELECT x, printf('word %d', x * 7919 % 10007), x * 1.5 FROM n;\n\
         CREATE INDEX words ON t (word, number);\n\
         UPDATE t SET word = word || word WHERE id % 3 = 0;\n\
         DELETE FROM t WHERE id % 7 = 0;\n\
         SELECT count(*), sum(number), max(length(word)) FROM t;\n\
         SELECT length(group_concat(word)) FROM t GROUP BY id % 10;\n\
         SELECT a.word, count(*) FROM t a JOIN t b ON a.word = b.word\n\
         GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5;\n"
    )
}
