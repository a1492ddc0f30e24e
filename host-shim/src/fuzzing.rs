//! Entry points for fuzz targets: request bytes and text, parsed by the very functions that the handlers call.

use crate::{
    api::{
        containers::{self, Policy},
        exec, json, query,
    },
    engine::{self, create, exec::ExecConfig, model::HostConfig},
};

/// Whose body is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /containers/create`
    Create,
    /// `POST /containers/{id}/exec`
    Exec,
    /// `POST /exec/{id}/start`
    ExecStart,
    /// `POST /containers/{id}/update`
    Update,
}

/// All of them.
pub const ROUTES: [Route; 4] = [Route::Create, Route::Exec, Route::ExecStart, Route::Update];

/// Parses a request's body; whether it was accepted.
pub fn http_body(route: Route, body: &[u8]) -> bool {
    match route {
        Route::Create => json::parse(body).and_then(create::Body::parse).is_ok(),
        Route::Exec => json::parse::<ExecConfig>(body).is_ok(),
        Route::ExecStart => json::parse::<exec::Start>(body).is_ok(),
        Route::Update => json::parse::<Policy>(body).is_ok() & json::parse::<HostConfig>(body).is_ok(),
    }
}

/// Parses a query string and reads it in each of the ways that handlers read parameters.
pub fn query(text: &str) -> bool {
    let query = query::Query::parse(text);
    for name in ["all", "h", "w", "t", "limit", "since", "until", "path", "stdout", "tail", "name"] {
        let _ = (query.get(name), query.has(name), query.bool(name), query.all(name).count());
        let _ = (query.int(name), query.time(name));
    }
    let _ = exec::size(&query);
    let _ = crate::api::containers::log_query(&query);
    let _ = crate::api::hijack::parse_keys(query.get("detachKeys"));
    query.filters().inspect(read).is_ok()
}

/// Parses the value of the parameter `filters`; whether it was accepted.
pub fn filters(text: &str) -> bool {
    query::Filters::parse(text).inspect(read).is_ok()
}

fn read(filters: &query::Filters) {
    for key in ["label", "dangling", "name", "status", "until"] {
        let _ = (filters.get(key), filters.has(key), filters.bool_or(key, true), filters.exact(key, "x"));
        let _ = filters.labels(key, |name| (name == "x").then_some("y"));
    }
    let _ = filters.check(&["label", "dangling"]);
    let _ = crate::api::until(filters);
}

/// Reads bytes as a container's record in the store, and does with it what the daemon does with a record it believes.
pub fn store_record(bytes: &[u8]) -> bool {
    crate::engine::record::fuzz(bytes)
}

/// Makes the API's answer of a guest's numbers.
pub fn guest_stats(stats: &proto::sandbox::StatsResponse) -> bool {
    engine::stats::fuzz(stats).is_object()
}

/// Makes a header of what a guest says of a path.
pub fn guest_path_stat(stat: &proto::sandbox::PathStat) -> bool {
    containers::path_stat(stat).is_ok()
}

/// Makes the API's error of a guest's refusal.
pub fn guest_refusal(status: &tonic::Status) -> bool {
    !engine::vm::status_error(status).to_string().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_parse_what_the_handlers_parse() {
        assert!(http_body(Route::Create, br#"{"image":"x","Cmd":"y"}"#));
        assert!(!http_body(Route::Create, br#"{"Image":5}"#));
        assert!(http_body(Route::Exec, br#"{"Cmd":["a"]}"#));
        assert!(http_body(Route::ExecStart, br#"{"Detach":true,"ConsoleSize":[1,2]}"#));
        assert!(http_body(Route::Update, br#"{"RestartPolicy":{"Name":"no"},"Memory":0}"#));
        assert!(filters(r#"{"label":["a"]}"#) && !filters("{"));
        query("filters=%7B%22until%22%3A%5B%221h%22%5D%7D&tail=-1&h=x&since=99999999999999999999");
    }
}
