//! Queries, written.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use runtime_api::{LogQuery, ModuleCommand};

/// A path and its query.
pub(crate) struct Query {
    route: String,
    mark: char,
}

impl Query {
    pub(crate) fn new(path: &str) -> Self {
        Self { route: path.to_owned(), mark: '?' }
    }

    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.route.push(self.mark);
        self.route += &format!("{name}={}", encoded(value));
        self.mark = '&';
        self
    }

    fn and_if(self, name: &str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.and(name, &value),
            None => self,
        }
    }

    pub(crate) fn route(self) -> String {
        self.route
    }
}

pub(crate) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// Where a log is read (`OpenFaaS`).
pub(crate) fn of_logs(query: &LogQuery) -> String {
    let instance = Some(query.instance.clone()).filter(|instance| !instance.is_empty());
    Query::new("/system/logs")
        .and("name", query.function.name())
        .and("namespace", query.function.namespace())
        .and("follow", if query.follow { "true" } else { "false" })
        .and_if("instance", instance)
        .and_if("tail", query.tail.map(|tail| tail.to_string()))
        .and_if("since", query.since.map(|since| since.to_string()))
        .route()
}

/// Where a module is stored that is started with that command.
pub(crate) fn of_command(command: &ModuleCommand) -> String {
    let mut query = Query::new("/system/artifacts");
    for arg in &command.args {
        query = query.and("arg", arg);
    }
    for (name, value) in &command.env {
        query = query.and("env", &format!("{name}={value}"));
    }
    query.route()
}

#[cfg(test)]
mod tests {
    use runtime_api::FunctionName;

    use super::*;

    #[test]
    fn values_are_encoded() {
        let command =
            ModuleCommand { args: vec!["a&b".into(), "ü".into()], env: vec![("A".into(), "b=c d".into())] };
        assert_eq!(of_command(&command), "/system/artifacts?arg=a%26b&arg=%C3%BC&env=A%3Db%3Dc%20d");
        assert_eq!(of_command(&ModuleCommand::default()), "/system/artifacts");
    }

    #[test]
    fn a_log_is_asked_for_as_openfaas_has_it() {
        let query = LogQuery {
            function: FunctionName::parse("f.dev").unwrap(),
            instance: String::new(),
            tail: Some(5),
            since: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            follow: true,
        };
        let since = "since=2026%2D01%2D02T03%3A04%3A05Z";
        assert_eq!(of_logs(&query), format!("/system/logs?name=f&namespace=dev&follow=true&tail=5&{since}"));
    }
}
