//! What a spec asks of a node, checked: from OpenFaaS's words to the engine's settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::{HeaderValue, Uri};
use runtime_api::{
    ASYNC, Artifact, BEARER_SECRET, CALLBACK, CALLBACK_SECRET, Error, FunctionName, FunctionSpec, Result,
    SecretName, nearest, parse_duration,
};
use runtime_egress::Policy;
use runtime_oci::PullPolicy;
use runtime_wasm::{Limits, LogStyle, MAX_MEMORY_BYTES, Settings, StdioSettings, World};

use crate::access::Access;

/// Memory of an instance where `limits.memory` gives none.
const DEFAULT_MEMORY_BYTES: u64 = 128 << 20;

/// Time of a call where `exec_timeout` gives none.
const DEFAULT_EXEC_TIMEOUT: Duration = Duration::from_secs(60);

/// What a command may answer, in bytes.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// Secrets that one function may read.
const MAX_SECRETS: usize = 64;

/// Where a function says which addresses it may reach.
const EGRESS: &str = "dev.fawn.egress";

/// Where a function says when a registry is to be asked for its image.
const PULL_POLICY: &str = "dev.fawn.pull-policy";

/// Where a function says whether calls share an instance.
const ISOLATION: &str = "dev.fawn.isolation";

/// What the names of our own annotations begin with, and all of them.
const OURS: &str = "dev.fawn.";
const ANNOTATIONS: [&str; 5] = [BEARER_SECRET, CALLBACK_SECRET, EGRESS, ISOLATION, PULL_POLICY];

/// Where a function says what runs it, as a label or an annotation.
const RUNTIME: &str = "com.openfaas.runtime";

/// What an operator sets for all functions of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeRules {
    pub(crate) max_exec_timeout: Duration,
    pub(crate) egress: Policy,
    pub(crate) pull_policy: PullPolicy,
    /// Whether there are credentials that a function can ask for.
    pub(crate) asks_credentials: bool,
    /// Whether calls that are to run later are kept in front of it.
    pub(crate) keeps_calls: bool,
}

/// A spec whose every field this node can honour.
#[derive(Clone, Debug)]
pub(crate) struct CheckedSpec {
    pub(crate) name: FunctionName,
    pub(crate) spec: FunctionSpec,
    pub(crate) pull_policy: PullPolicy,
    /// Those that it names, each once.
    pub(crate) secrets: Vec<SecretName>,
    /// The secret that callers present, if it asks for one.
    pub(crate) bearer: Option<SecretName>,
    /// The secret that answers are signed with which are posted, if they are.
    pub(crate) signing: Option<SecretName>,
    limits: Limits,
    timeout: Duration,
    max_inflight: u64,
}

impl NodeRules {
    /// Checks all that the spec of a deploy tells alone, before the image is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the field and what to do.
    pub(crate) fn check(&self, spec: FunctionSpec) -> Result<CheckedSpec> {
        spec.image()?;
        refuse_misspelt(&spec)?;
        refuse_unsupported(&spec)?;
        self.check_asynchronous(&spec)?;
        let named = spec.secrets.len();
        if named > MAX_SECRETS {
            let text =
                format!("the function names {named} secrets: at most {MAX_SECRETS} can be given to it");
            return Err(Error::invalid("too-many-secrets", text));
        }
        self.read(spec)
    }

    /// What a function says of its asynchronous calls: whoever deploys it is told what is wrong, and not each caller.
    fn check_asynchronous(&self, spec: &FunctionSpec) -> Result<()> {
        match spec.annotations.get(ASYNC).map(String::as_str) {
            None | Some("false") => {}
            Some("true") if self.keeps_calls => {}
            Some("true") => {
                let text = format!(
                    "annotation {ASYNC} needs a queue, and a node alone has none: deploy to `fawn up`, or remove it"
                );
                return Err(Error::invalid("unsupported", text));
            }
            Some(other) => {
                let text = format!("annotation {ASYNC} {other:?} is neither \"true\" nor \"false\"");
                return Err(Error::invalid("invalid-async", text));
            }
        }
        let Some(url) = spec.annotations.get(CALLBACK) else { return Ok(()) };
        let uri: Option<Uri> =
            url.trim().parse().ok().filter(|uri: &Uri| {
                uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            });
        let scheme = uri.as_ref().and_then(|uri| uri.host().and(uri.scheme_str()));
        if matches!(scheme, Some("http" | "https")) {
            return Ok(());
        }
        let text = format!(
            "annotation {CALLBACK} {url:?} is no URL that can be posted to: write one such as https://example.com/done, without user and password"
        );
        Err(Error::invalid("invalid-callback", text))
    }

    /// What a spec asks for that was accepted, maybe by an earlier version, whose rules were others: no more is wanted of
    /// it than that it can be run.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn read(&self, spec: FunctionSpec) -> Result<CheckedSpec> {
        let name = spec.name()?;
        let access = Access::of(&spec, &name)?;
        access.check(self.asks_credentials)?;
        check_environment(&spec)?;
        check_content_type(&spec)?;
        let memory_bytes = spec.memory_limit()?.map_or(DEFAULT_MEMORY_BYTES, |limit| limit.0);
        if memory_bytes > MAX_MEMORY_BYTES {
            let most = MAX_MEMORY_BYTES >> 20;
            return Err(Error::invalid(
                "memory-limit",
                format!("limits.memory is more than {most}Mi, the most that a function can have"),
            ));
        }
        let annotation = spec.annotations.get(EGRESS).map(String::as_str);
        let egress = self.egress.for_function(annotation);
        let egress = egress
            .map_err(|error| Error::invalid("invalid-egress", format!("annotation {EGRESS}: {error}")))?;
        let pull_policy = match spec.annotations.get(PULL_POLICY) {
            Some(text) => text.parse().map_err(|error| {
                Error::invalid("invalid-pull-policy", format!("annotation {PULL_POLICY}: {error}"))
            })?,
            None => self.pull_policy,
        };
        let secrets = secrets(&name, &spec.secrets)?;
        let signing = spec.annotations.get(CALLBACK_SECRET).map(|secret| {
            SecretName::new(secret, name.namespace()).map_err(|error| {
                Error::invalid("invalid-callback", format!("annotation {CALLBACK_SECRET}: {error}"))
            })
        });
        let timeout = self.timeout(&spec);
        let max_inflight = spec.env_vars.get("max_inflight").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(CheckedSpec {
            name,
            pull_policy,
            secrets,
            bearer: access.secret().cloned(),
            signing: signing.transpose()?,
            limits: Limits { memory_bytes, egress },
            timeout,
            max_inflight,
            spec,
        })
    }

    /// `exec_timeout`; unset or not a duration, the default; 0 or beyond the maximum, the maximum. A `write_timeout`
    /// that is shorter ends a call as well: the answer must be written within it (`OpenFaaS` watchdogs).
    fn timeout(&self, spec: &FunctionSpec) -> Duration {
        let asked = |name: &str| spec.env_vars.get(name).and_then(|text| parse_duration(text));
        [asked("exec_timeout").unwrap_or(DEFAULT_EXEC_TIMEOUT), asked("write_timeout").unwrap_or_default()]
            .into_iter()
            .filter(|bound| !bound.is_zero())
            .fold(self.max_exec_timeout, Duration::min)
    }
}

fn secrets(function: &FunctionName, names: &[String]) -> Result<Vec<SecretName>> {
    let named = names.iter().map(|name| SecretName::new(name, function.namespace()));
    let once: BTreeSet<SecretName> = named.collect::<Result<_>>()?;
    Ok(once.into_iter().collect())
}

/// Refuses what looks like one of our own annotations and is none: it would not do what it is there for.
fn refuse_misspelt(spec: &FunctionSpec) -> Result<()> {
    let ours = |name: &&String| name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS));
    let unknown = |text: String| Err(Error::invalid("unknown-annotation", text));
    if let Some(label) = spec.labels.keys().find(ours) {
        let meant = nearest(label, ANNOTATIONS).unwrap_or(OURS);
        return unknown(format!("label {label:?} is none of this version: {meant} is an annotation"));
    }
    match spec.annotations.keys().filter(ours).find(|name| !ANNOTATIONS.contains(&name.as_str())) {
        Some(name) => unknown(match nearest(name, ANNOTATIONS) {
            Some(meant) => format!("annotation {name:?} is not known: {meant} may be meant"),
            None => format!("annotation {name:?} is not known: there is {}", ANNOTATIONS.join(", ")),
        }),
        None => Ok(()),
    }
}

/// Refuses by name what would otherwise be ignored at the user's cost.
fn refuse_unsupported(spec: &FunctionSpec) -> Result<()> {
    let refuse = |what: &str, instead: &str| {
        Err(Error::invalid("unsupported", format!("{what} is not supported by this version; {instead}")))
    };
    if let Some(value) = spec.annotations.get(ISOLATION).filter(|value| *value != "fresh") {
        let instead = "write \"fresh\", or remove it: every call has a fresh instance";
        return refuse(&format!("annotation {ISOLATION} {value:?}"), instead);
    }
    let runtimes = [("label", spec.labels.get(RUNTIME)), ("annotation", spec.annotations.get(RUNTIME))];
    for (place, runtime) in runtimes {
        if let Some(runtime) = runtime.filter(|runtime| *runtime != "wasm") {
            let instead = "functions are WebAssembly: write \"wasm\", or remove it";
            return refuse(&format!("{place} {RUNTIME} {runtime:?}"), instead);
        }
    }
    for variable in ["jwt_auth", "marshal_request"] {
        if spec.env_vars.get(variable).is_some_and(|value| value == "true" || value == "1") {
            return refuse(&format!("environment variable {variable}"), "remove it");
        }
    }
    Ok(())
}

fn check_environment(spec: &FunctionSpec) -> Result<()> {
    let unusable = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match spec.env_vars.iter().find(unusable) {
        Some((name, _)) => Err(Error::invalid(
            "invalid-environment",
            format!("environment variable {name:?} has no valid name or value"),
        )),
        None => Ok(()),
    }
}

fn check_content_type(spec: &FunctionSpec) -> Result<()> {
    let Some(kind) = spec.env_vars.get("content_type") else { return Ok(()) };
    HeaderValue::from_str(kind).map(drop).map_err(|_| {
        Error::invalid(
            "invalid-environment",
            format!(
                "environment variable content_type {kind:?} cannot be a header: write it like \"text/plain\""
            ),
        )
    })
}

impl CheckedSpec {
    /// Memory that an instance may use, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.limits.memory_bytes
    }

    /// How its log is to be written (`OpenFaaS` of-watchdog, whose documentation and code spell one name differently).
    pub(crate) fn log_style(&self) -> LogStyle {
        let env = &self.spec.env_vars;
        LogStyle {
            prefix: flag(env, "prefix_logs", true),
            call_id: flag(env, "log_callid", false) || flag(env, "log_call_id", false),
        }
    }

    /// How the engine is to run the module.
    pub(crate) fn settings(&self, artifact: &Artifact) -> Settings {
        let env = &self.spec.env_vars;
        let process = self.process();
        Settings {
            function: self.name.clone(),
            limits: self.limits.clone(),
            timeout: self.timeout,
            max_inflight: self.max_inflight,
            env: self.environment(artifact, process),
            args: match process {
                // No shell and no quoting (OpenFaaS).
                Some(process) => process.split(' ').map(str::to_owned).collect(),
                None => std::iter::once(self.name.name().to_owned())
                    .chain(artifact.args.iter().cloned())
                    .collect(),
            },
            secrets: None,
            stdio: StdioSettings {
                combine_output: flag(env, "combine_output", true),
                cgi_headers: flag(env, "cgi_headers", true),
                content_type: env.get("content_type").filter(|kind| !kind.is_empty()).cloned(),
                max_output_bytes: MAX_OUTPUT_BYTES,
            },
        }
    }

    fn process(&self) -> Option<&str> {
        let env = &self.spec.env_vars;
        let given = [Some(&self.spec.env_process), env.get("function_process"), env.get("fprocess")];
        given.into_iter().flatten().map(String::as_str).find(|process| !process.is_empty())
    }

    fn environment(&self, artifact: &Artifact, process: Option<&str>) -> Vec<(String, String)> {
        let mut env: BTreeMap<String, String> = artifact.env.iter().cloned().collect();
        env.extend(self.spec.env_vars.clone());
        env.extend(process.map(|process| ("fprocess".to_owned(), process.to_owned())));
        env.insert("OPENFAAS_NAME".into(), self.name.name().into());
        env.insert("OPENFAAS_NAMESPACE".into(), self.name.namespace().into());
        env.into_iter().collect()
    }

    /// Refuses a watchdog mode that does not fit the module.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says what to do.
    pub(crate) fn check_mode(&self, world: World) -> Result<()> {
        let mode = self.spec.env_vars.get("mode").map_or("", String::as_str);
        match (mode, world) {
            ("", _) | ("http", World::Http) => Ok(()),
            ("http", _) => Err(Error::invalid(
                "unsupported",
                "environment variable mode is \"http\", but the module is a command that answers on standard output; remove mode",
            )),
            (mode, _) => Err(Error::invalid(
                "unsupported",
                format!(
                    "environment variable mode {mode:?} is not supported by this version; remove it: \
                     commands answer on standard output, wasi:http components stream"
                ),
            )),
        }
    }
}

/// Only the exact words are understood, as in OpenFaaS.
fn flag(env: &BTreeMap<String, String>, name: &str, default: bool) -> bool {
    env.get(name).map_or(default, |value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> NodeRules {
        NodeRules {
            max_exec_timeout: Duration::from_secs(900),
            egress: Policy::public(),
            pull_policy: PullPolicy::IfNotPresent,
            asks_credentials: false,
            keeps_calls: false,
        }
    }

    fn spec(json: &str) -> FunctionSpec {
        serde_json::from_str(&format!(r#"{{"service":"f","image":"a/b"{json}}}"#)).unwrap()
    }

    fn artifact() -> Artifact {
        Artifact {
            digest: runtime_api::Digest([0; 32]),
            size_bytes: 0,
            kind: runtime_api::ArtifactKind::Module,
            args: vec!["--from-image".into()],
            env: vec![("A".into(), "image".into()), ("B".into(), "image".into())],
            path: "/".into(),
        }
    }

    fn settings(json: &str) -> Settings {
        rules().check(spec(json)).unwrap().settings(&artifact())
    }

    #[test]
    fn the_time_of_a_call_follows_exec_timeout() {
        for (value, seconds) in [("", 60), ("5s", 5), ("7", 7), ("0", 900), ("2h", 900), ("soon", 60)] {
            let timeout = settings(&format!(r#","envVars":{{"exec_timeout":"{value}"}}"#)).timeout;
            assert_eq!(timeout, Duration::from_secs(seconds), "{value}");
        }
    }

    #[test]
    fn a_function_s_own_pull_policy_comes_before_the_node_s() {
        let policy = |json| rules().check(spec(json)).unwrap().pull_policy;
        assert_eq!(policy(""), PullPolicy::IfNotPresent);
        assert_eq!(policy(r#","annotations":{"dev.fawn.pull-policy":"Never"}"#), PullPolicy::Never);
    }

    #[test]
    fn a_shorter_write_timeout_ends_a_call_too() {
        for (exec, write, seconds) in [
            ("5s", "2s", 2),
            ("5s", "9", 5),
            ("", "30s", 30),
            ("0", "20m", 900),
            ("0", "10m", 600),
            ("5s", "0", 5),
            ("5s", "soon", 5),
        ] {
            let env = format!(r#","envVars":{{"exec_timeout":"{exec}","write_timeout":"{write}"}}"#);
            assert_eq!(settings(&env).timeout, Duration::from_secs(seconds), "{exec}, {write}");
        }
    }

    #[test]
    fn the_command_line_comes_from_the_spec_else_from_the_image() {
        assert_eq!(settings("").args, ["f", "--from-image"]);
        assert_eq!(settings(r#","envProcess":"cat  a""#).args, ["cat", "", "a"]);
        assert_eq!(settings(r#","envVars":{"fprocess":"env"}"#).args, ["env"]);
    }

    #[test]
    fn a_guest_sees_its_own_environment() {
        let env = settings(r#","envProcess":"cat","envVars":{"A":"spec"}"#).env;
        let expected = [
            ("A", "spec"),
            ("B", "image"),
            ("OPENFAAS_NAME", "f"),
            ("OPENFAAS_NAMESPACE", "openfaas-fn"),
            ("fprocess", "cat"),
        ];
        assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_function_may_say_that_it_is_webassembly() {
        for place in ["labels", "annotations"] {
            rules().check(spec(&format!(r#","{place}":{{"com.openfaas.runtime":"wasm"}}"#))).unwrap();
        }
    }

    #[test]
    fn annotations_and_labels_of_others_are_theirs() {
        let theirs = r#"{"topic":"a","dev.fawnlike":"b","com.example.dev.fawn.egress":"c","ä":"d"}"#;
        rules().check(spec(&format!(r#","annotations":{theirs},"labels":{theirs}"#))).unwrap();
    }

    #[test]
    fn secrets_are_of_the_function_s_own_namespace_and_counted_once() {
        let checked = rules().check(spec(r#","namespace":"dev","secrets":["b","a.pem","b"]"#)).unwrap();
        let expected = ["a.pem", "b"].map(|name| SecretName::new(name, "dev").unwrap());
        assert_eq!(checked.secrets, expected);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (json, named) in [
            (r#","secrets":["../a"]"#, "traversal"),
            (r#","secrets":["A"]"#, "\"A\""),
            (r#","namespace":"Dev""#, "Dev"),
            (r#","annotations":{"faas.net/basic-auth":"true"}"#, "faas.net/basic-auth"),
            (r#","annotations":{"faas.net/async":"true"}"#, "a node alone has none"),
            (r#","annotations":{"faas.net/async":"yes"}"#, "neither"),
            (r#","annotations":{"faas.net/callback":"/done"}"#, "faas.net/callback"),
            (r#","annotations":{"faas.net/callback":"ftp://a.b/"}"#, "faas.net/callback"),
            (r#","annotations":{"faas.net/callback":"https://me:word@a.b/"}"#, "faas.net/callback"),
            (r#","annotations":{"dev.fawn.callback-secret":"../a"}"#, "dev.fawn.callback-secret"),
            (r#","annotations":{"dev.fawn.bearer-secret":"../a"}"#, "dev.fawn.bearer-secret"),
            (r#","annotations":{"dev.fawn.isolation":"concurrent"}"#, "dev.fawn.isolation"),
            (r#","annotations":{"dev.fawn.isolation":"Fresh"}"#, "write \"fresh\""),
            (r#","annotations":{"dev.fawn.egres":"none"}"#, "dev.fawn.egress may be meant"),
            (r#","annotations":{"dev.fawn.Egress":"none"}"#, "dev.fawn.egress may be meant"),
            (r#","annotations":{"Dev.Fawn.pullpolicy":"Never"}"#, "dev.fawn.pull-policy may be meant"),
            (r#","annotations":{"dev.fawn.bearer_secret":"a"}"#, "dev.fawn.bearer-secret may be meant"),
            (
                r#","annotations":{"dev.fawn.colour":"red"}"#,
                "there is dev.fawn.bearer-secret, dev.fawn.callback-secret,",
            ),
            (r#","labels":{"dev.fawn.egress":"none"}"#, "dev.fawn.egress is an annotation"),
            (r#","annotations":{"dev.fawn.egress":"not a policy!"}"#, "dev.fawn.egress"),
            (r#","annotations":{"dev.fawn.pull-policy":"Sometimes"}"#, "dev.fawn.pull-policy"),
            (
                r#","annotations":{"com.openfaas.runtime":"container"}"#,
                "annotation com.openfaas.runtime \"container\"",
            ),
            (r#","labels":{"com.openfaas.runtime":"container"}"#, "label com.openfaas.runtime \"container\""),
            (r#","labels":{"com.openfaas.runtime":""}"#, "com.openfaas.runtime"),
            (r#","envVars":{"jwt_auth":"true"}"#, "jwt_auth"),
            (r#","envVars":{"A=B":"1"}"#, "A=B"),
            (r#","envVars":{"content_type":"text\nplain"}"#, "content_type"),
            (r#","limits":{"memory":"2Gi"}"#, "limits.memory"),
            (r#","requests":{"cpu":"lots"}"#, "requests.cpu"),
        ] {
            let error = rules().check(spec(json)).unwrap_err();
            assert!(error.to_string().contains(named), "{json}: {error}");
        }
        let many: Vec<String> = (0..65).map(|number| format!("\"s{number}\"")).collect();
        let error = rules().check(spec(&format!(r#","secrets":[{}]"#, many.join(",")))).unwrap_err();
        assert!(error.to_string().contains("65 secrets"), "{error}");
        for (mode, world) in
            [("afterburn", World::Http), ("streaming", World::CoreCommand), ("http", World::Command)]
        {
            let checked = rules().check(spec(&format!(r#","envVars":{{"mode":"{mode}"}}"#))).unwrap();
            assert!(checked.check_mode(world).unwrap_err().to_string().contains(mode));
        }
    }
}
