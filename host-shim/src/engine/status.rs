//! The `Status` column of `docker ps`.

use super::{
    clock,
    record::{State, Status},
};

/// "Up 2 seconds", "Exited (0) 3 minutes ago", "Created", ...
#[must_use]
pub fn text(state: &State) -> String {
    let up = || clock::human(clock::since(&state.started_at));
    let ago = || clock::human(clock::since(&state.finished_at));
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}", up()),
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, ago()),
        Status::Removing => "Removal In Progress".into(),
        Status::Exited if clock::parse(&state.finished_at).is_none() => String::new(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago()),
        Status::Dead => "Dead".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_ps_words_it() {
        let past = clock::format(clock::now_nanos() - 2_100_000_000);
        let state = |status| State {
            status,
            started_at: past.clone(),
            finished_at: past.clone(),
            exit_code: 3,
            ..State::default()
        };
        for (status, wanted) in [
            (Status::Created, "Created"),
            (Status::Running, "Up 2 seconds"),
            (Status::Paused, "Up 2 seconds (Paused)"),
            (Status::Exited, "Exited (3) 2 seconds ago"),
            (Status::Removing, "Removal In Progress"),
            (Status::Dead, "Dead"),
        ] {
            assert_eq!(text(&state(status)), wanted);
        }
    }
}
