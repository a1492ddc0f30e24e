//! Compiles the gRPC contracts with protox: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "arca/sandbox/v1/sandbox.proto",
        "arca/tapforwarder/v1/tapforwarder.proto",
        "arca/runner/v1/runner.proto",
    ];
    println!("cargo::rerun-if-changed=proto");
    let set = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
