//! `fuzz`: the short driver, and what helps with findings.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{env, fs, path::Path, process::ExitCode};

use fuzz::{
    Target,
    short::{Budget, run, table, work},
    target,
    targets::ALL,
};

const USAGE: &str =
    "fuzz short [TARGET...]       feeds each some seconds: ARCA_FUZZ_SECONDS in all (60), ARCA_FUZZ_SEED (1)
fuzz run TARGET FILE...      feeds the files once
fuzz list                    the targets' names
fuzz corpus TARGET FOLDER    writes the seeds there";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["short", names @ ..] => short(names),
        ["worker", name, budget, seed] => worker(name, budget, seed),
        ["run", name, files @ ..] => replay(name, files),
        ["list"] => {
            ALL.iter().for_each(|target| println!("{}", target.name));
            Ok(())
        }
        ["corpus", name, folder] => corpus(name, folder),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn number(variable: &str, default: u64) -> Result<u64, String> {
    match env::var(variable) {
        Ok(text) => text.parse().map_err(|_| format!("{variable} is {text:?}, not a number")),
        Err(_) => Ok(default),
    }
}

fn find(name: &str) -> Result<&'static Target, String> {
    target(name).ok_or_else(|| format!("no target {name:?}; `fuzz list` names them"))
}

fn short(names: &[&str]) -> Result<(), String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let targets = if names.is_empty() {
        ALL.iter().collect()
    } else {
        names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?
    };
    let seed = number("ARCA_FUZZ_SEED", 1)?;
    let budget = Budget::Time(number("ARCA_FUZZ_SECONDS", 60)? * 1000 / targets.len().max(1) as u64);
    println!("{}", table("target", None));
    let (mut inputs, mut findings) = (0, 0);
    for target in targets {
        match run(&program, target, budget, seed).map_err(|error| error.to_string())? {
            Ok(report) => {
                inputs += report.inputs;
                println!("{}", table(target.name, Some(&report)));
            }
            Err(finding) => {
                findings += 1;
                println!("{:<16} FOUND: {}", target.name, finding.what);
                if let Some(input) = finding.input {
                    println!("    cargo run -p fuzz -- run {} {}", target.name, input.display());
                }
            }
        }
    }
    println!("{inputs} inputs, seed {seed}, {findings} findings");
    if findings == 0 { Ok(()) } else { Err(format!("{findings} of the fuzz targets found something")) }
}

fn worker(name: &str, budget: &str, seed: &str) -> Result<(), String> {
    let bad = |error: std::num::ParseIntError| error.to_string();
    println!("{}", work(find(name)?, budget.parse().map_err(bad)?, seed.parse().map_err(bad)?));
    Ok(())
}

fn replay(name: &str, files: &[&str]) -> Result<(), String> {
    let target = find(name)?;
    for file in files {
        let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        println!("{file}: {:?}", (target.run)(&input));
    }
    Ok(())
}

fn corpus(name: &str, folder: &str) -> Result<(), String> {
    find(name)?.write_seeds(Path::new(folder)).map_err(|error| format!("{folder}: {error}"))
}
