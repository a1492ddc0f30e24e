//! Interactive shells: resized, interrupted, detached from.

use std::time::Duration;

use tests::terminal::Terminal;

use crate::support::{Container, docker};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_shell_resized_and_interrupted() {
    let command = docker().command(&["run", "--rm", "-it", "busybox", "sh"]);
    let mut terminal = Terminal::start(&command, 30, 101).unwrap();
    terminal.wait_for("/ # ", SOON).unwrap();
    terminal.type_keys("tty; stty size\n").unwrap();
    terminal.wait_for("/dev/pts/0", SOON).unwrap();
    terminal.wait_for("30 101", SOON).unwrap();
    terminal.resize(44, 123).unwrap();
    // The CLI passes the new size on when it is told by a signal; the shell may be asked before that.
    terminal.type_keys("until stty size | grep '44 123'; do sleep 0.2; done\n").unwrap();
    terminal.wait_for("\n44 123", SOON).unwrap();
    // The quotes keep the echoed line from looking like the output.
    terminal.type_keys("echo n''ow; sleep 1000\n").unwrap();
    terminal.wait_for("now", SOON).unwrap();
    terminal.type_keys("\x03").unwrap();
    terminal.wait_for("/ # ", SOON).unwrap();
    terminal.type_keys("echo $?; exit 5\n").unwrap();
    terminal.wait_for("130", SOON).unwrap();
    assert_eq!(terminal.exit_code(SOON).unwrap(), 5);
}

#[test]
fn exec_on_a_terminal() {
    let container = Container::run("exectty", "", "sleep 300");
    let command = docker().command(&["exec", "-it", &container.name, "sh"]);
    let mut terminal = Terminal::start(&command, 25, 90).unwrap();
    terminal.wait_for("# ", SOON).unwrap();
    // The CLI of Debian 12 tells the size once the shell runs already.
    terminal
        .type_keys("tty; until stty size 2>&1 | grep '25 90'; do sleep 0.2; done; echo $TERM; exit 6\n")
        .unwrap();
    terminal.wait_for("/dev/pts/", SOON).unwrap();
    terminal.wait_for("\n25 90", SOON).unwrap();
    terminal.wait_for("xterm", SOON).unwrap();
    assert_eq!(terminal.exit_code(SOON).unwrap(), 6);
}

#[test]
fn detach_keys_leave_it_running() {
    let container = Container::named("detach");
    let command = docker().command(&["run", "-it", "--name", &container.name, "busybox", "sh"]);
    let mut terminal = Terminal::start(&command, 25, 90).unwrap();
    terminal.wait_for("/ # ", SOON).unwrap();
    terminal.type_keys("\x10\x11").unwrap();
    terminal.exit_code(SOON).unwrap();
    assert_eq!(container.inspect("{{.State.Running}}"), "true");
    let command = docker().command(&["attach", &container.name]);
    let mut terminal = Terminal::start(&command, 25, 90).unwrap();
    terminal.type_keys("echo back; exit 4\n").unwrap();
    terminal.wait_for("back", SOON).unwrap();
    assert_eq!(terminal.exit_code(SOON).unwrap(), 4);
}
