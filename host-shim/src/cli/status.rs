//! `arca daemon status`

use std::process::ExitCode;

use super::{
    CliResult, client,
    lock::{Owner, owner},
    output::say,
};
use crate::{
    api::status::{Status, VmStatus},
    error::Error,
    home::Home,
};

pub(super) fn run() -> CliResult {
    let home = Home::from_env()?;
    let Owner::Daemon(told) = owner(&home)? else {
        say(format_args!(
            "arca: no daemon runs for {}; start one with `arca daemon start`",
            home.root().display()
        ));
        return Ok(ExitCode::FAILURE);
    };
    let pid = told.pid.map_or_else(|| "?".to_owned(), |p| p.to_string());
    let socket = told.socket.ok_or_else(|| {
        Error::system(format!(
            "the daemon (pid {pid}) is just starting; its log is {}",
            home.daemon_log().display()
        ))
    })?;
    let text = client::get(&socket, "/_arca/status").map_err(|error| {
        Error::system(format!(
            "the daemon (pid {pid}) does not answer on {}: `arca daemon stop` ends it; its log is {}",
            socket.display(),
            home.daemon_log().display()
        ))
        .because(error)
    })?;
    let status: Status = serde_json::from_str(&text)?;
    say(format_args!("pid          {pid}"));
    say(format_args!("socket       {}", socket.display()));
    say(format_args!("accelerator  {}", status.accelerator));
    say(format_args!("home         {}", home.root().display()));
    say(format_args!("log          {}", home.daemon_log().display()));
    say(format_args!("VMs          {}", status.vms.len()));
    if !status.vms.is_empty() {
        say(format_args!("\n{}", table(&status.vms).trim_end()));
    }
    for container in &status.unserved {
        say(format_args!(
            "\ncontainer {} is not served: {}; its files are kept in {}",
            container.id, container.why, container.files
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Columns as docker's, three blanks apart.
fn table(vms: &[VmStatus]) -> String {
    let head = ["CONTAINER ID", "NAME", "STATE", "PID", "MEMORY"].map(str::to_owned);
    let rows = vms.iter().map(|vm| {
        let id = vm.id.get(..12).unwrap_or(&vm.id).to_owned();
        let pid = if vm.pid == 0 { "-".to_owned() } else { vm.pid.to_string() };
        [id, vm.name.clone(), vm.state.clone(), pid, format!("{:.1} MiB", mib(vm.memory_kib))]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for row in &rows {
        let line: String = row.iter().enumerate().map(|(n, cell)| format!("{cell:<0$}", width(n))).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let vm = |name: &str, pid| VmStatus {
            id: "0123456789abcdef".into(),
            name: name.into(),
            state: "running".into(),
            pid,
            memory_kib: 1536,
        };
        assert_eq!(
            table(&[vm("a", 7), vm("longer", 0)]),
            "CONTAINER ID   NAME     STATE     PID   MEMORY\n\
             0123456789ab   a        running   7     1.5 MiB\n\
             0123456789ab   longer   running   -     1.5 MiB\n"
        );
    }
}
