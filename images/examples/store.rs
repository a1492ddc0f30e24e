//! Drives an image store by hand: `store ROOT pull NAME | load FILE | list | disks NAME | rm NAME`.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{process::ExitCode, sync::Arc, time::Instant};

use images::{Error, ImageStore, Options, Progress, ProgressEvent};

struct Print;

impl Progress for Print {
    fn event(&self, event: ProgressEvent) {
        if let Ok(line) = serde_json::to_string(&event) {
            println!("{line}");
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = Instant::now();
    match Box::pin(run(&arguments)).await {
        Ok(()) => {
            eprintln!("{:.3} s", start.elapsed().as_secs_f32());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{} {error}", error.kind().status());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Result<(), Error> {
    let [root, command, rest @ ..] = arguments else {
        return Err(Error::InvalidParameter("store ROOT pull|load|list|disks|rm …".into()));
    };
    let mut options = Options::new(*root);
    options.mirrors = std::env::var("MIRROR").into_iter().collect();
    let store = ImageStore::open(options)?;
    match (*command, rest) {
        ("pull", [name]) => {
            let platform = std::env::var("PLATFORM").ok();
            println!("{:?}", store.pull(&name.parse()?, platform.as_deref(), None, Arc::new(Print)).await?);
        }
        ("load", [file]) => {
            let file =
                tokio::fs::File::open(file).await.map_err(|e| Error::InvalidParameter(e.to_string()))?;
            println!("{:?}", store.load(file, Arc::new(Print)).await?);
        }
        ("disks", [name]) => println!("{:#?}", store.disks(&store.get(name)?.id).await?),
        ("rm", [name]) => println!("{:#?}", store.remove(name, false, false, &|_| Vec::new())?),
        ("list", []) => {
            for image in store.list()? {
                println!("{} {:?} {:?} {}", image.id, image.repo_tags, image.repo_digests, image.size);
            }
        }
        _ => return Err(Error::InvalidParameter(format!("unknown command {command}"))),
    }
    Ok(())
}
