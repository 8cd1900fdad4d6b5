//! A stack file as `OpenFaaS` has it: which functions there are, what they are made of, and how they are deployed.

mod append;
mod variables;
mod yaml;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{ArgAction, Args};
use regex::Regex;
use runtime_api::{DEFAULT_NAMESPACE, FunctionName, FunctionSpec, Resources};
use serde::Deserialize;

pub(crate) use self::append::Entry;
use self::yaml::{Map, Mixed, truth};
use crate::usage::Mistakes;

/// The files that are taken when none is named, the first of them that is there (faas-cli).
pub(crate) const USUAL_FILES: [&str; 2] = ["stack.yaml", "stack.yml"];
/// Beyond this it is no stack file, nor a file of variables, that somebody wrote. Before and after substitution.
const MAX_FILE_BYTES: usize = 1 << 20;
/// All are listed, built and watched at once.
const MAX_FUNCTIONS: usize = 1000;
/// The one version that there is (faas-cli).
const VERSION: &str = "1.0";

/// Which stack file, and which of its functions.
#[derive(Clone, Debug, Args)]
pub(crate) struct StackArguments {
    /// The stack file [default: stack.yaml, else stack.yml]
    #[arg(long, short = 'f', value_name = "FILE")]
    yaml: Option<PathBuf>,
    /// Only functions whose name matches, where * stands for anything
    #[arg(long, value_name = "WILDCARD", conflicts_with = "regex")]
    filter: Option<String>,
    /// Only functions whose name has a part that matches this regular expression
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// Whether ${VARIABLE} in the stack file is replaced from the environment
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    envsubst: bool,
}

/// A stack file that was read.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) file: PathBuf,
    /// Where the functions are to be deployed, if it says so.
    pub(crate) gateway: Option<String>,
    /// Those that were asked for.
    pub(crate) functions: BTreeMap<String, Function>,
    /// What goes into each function's folder besides its handler.
    pub(crate) copy: Vec<String>,
    /// Where templates come from, by name.
    pub(crate) templates: BTreeMap<String, String>,
}

impl StackArguments {
    /// Whether anything but the usual file is asked for.
    pub(crate) fn is_given(&self) -> bool {
        self.yaml.is_some() || self.filter.is_some() || self.regex.is_some()
    }

    /// The file that is meant.
    pub(crate) fn file(&self) -> Result<PathBuf> {
        if let Some(file) = &self.yaml {
            return Ok(file.clone());
        }
        let found = USUAL_FILES.iter().map(PathBuf::from).find(|file| file.is_file());
        let mistake = || "there is no stack.yaml here, nor a stack.yml: name the stack file with -f, or make one with `fawn new`";
        found.ok_or_else(|| Mistakes::from(mistake().to_owned()).into())
    }

    /// Reads the file and picks the functions.
    pub(crate) fn load(&self) -> Result<Stack> {
        self.pick(self.read()?)
    }

    fn read(&self) -> Result<Stack> {
        let file = self.file()?;
        let mut text = read(&file)?;
        if self.envsubst {
            text = replace_variables(&file, &text)?;
        }
        Ok(Stack::parse(&file, &text)?)
    }

    fn pick(&self, mut stack: Stack) -> Result<Stack> {
        if let Some(filter) = &self.filter {
            stack.functions.retain(|name, _| matches(filter, name));
        }
        if let Some(regex) = &self.regex {
            let regex = Regex::new(regex).map_err(|error| Mistakes::from(format!("--regex: {error}")))?;
            stack.functions.retain(|name, _| regex.is_match(name));
        }
        if stack.functions.is_empty() {
            let reason = match self.filter.as_ref().or(self.regex.as_ref()) {
                Some(pattern) => format!("no function's name matches {pattern:?}"),
                None => "it has no functions".into(),
            };
            return Err(mistake(&stack.file, &reason).into());
        }
        Ok(stack)
    }
}

/// The gateway of a stack file: of the one that is named, else of the usual one if it is here.
pub(crate) fn gateway(named: Option<PathBuf>) -> Result<Option<String>> {
    let arguments = StackArguments { yaml: named, filter: None, regex: None, envsubst: true };
    if arguments.file().is_err() {
        return Ok(None);
    }
    Ok(arguments.read()?.gateway)
}

impl Stack {
    /// Reads a stack file's text, after substitution.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, Mistakes> {
        let read: Option<StackFile> =
            serde_yaml_ng::from_str(text).map_err(|error| mistake(file, &error.to_string()))?;
        let StackFile { version, provider, functions, configuration } = read.unwrap_or_default();
        let wrong = |reason: String| mistake(file, &reason);
        if let Some(version) = version.filter(|version| !version.is_empty() && version != VERSION) {
            return Err(wrong(format!("version is {version}: {VERSION} is the only one that there is")));
        }
        let Provider { name, gateway } = provider.unwrap_or_default();
        match name.as_deref().unwrap_or_default() {
            "openfaas" | "faas" => {}
            "" => {
                return Err(wrong(
                    "provider.name is missing: write `name: openfaas` below `provider:`".into(),
                ));
            }
            other => return Err(wrong(format!("provider.name is {other:?}: openfaas is the only one"))),
        }
        let functions = functions.map(|map| map.0).unwrap_or_default();
        if functions.len() > MAX_FUNCTIONS {
            return Err(wrong(format!("it has {} functions: {MAX_FUNCTIONS} is the most", functions.len())));
        }
        let functions: BTreeMap<String, Function> = functions
            .into_iter()
            .map(|(name, function)| (name, function.unwrap_or_default().complete()))
            .collect();
        for (name, function) in &functions {
            function.full_name(name, "").map_err(|error| wrong(format!("functions.{name}: {error}")))?;
        }
        let Configuration { copy, templates } = configuration.unwrap_or_default();
        let sources = templates.unwrap_or_default().into_iter();
        Ok(Self {
            file: file.to_owned(),
            gateway: gateway.filter(|gateway| !gateway.is_empty()),
            functions,
            copy: copy.unwrap_or_default(),
            templates: sources
                .map(|source| (source.name.unwrap_or_default(), source.source.unwrap_or_default()))
                .collect(),
        })
    }
}

/// The file as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StackFile {
    version: Option<String>,
    provider: Option<Provider>,
    functions: Option<Map<Option<Function>>>,
    configuration: Option<Configuration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Provider {
    name: Option<String>,
    gateway: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    copy: Option<Vec<String>>,
    templates: Option<Vec<TemplateSource>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TemplateSource {
    name: Option<String>,
    source: Option<String>,
}

/// What a stack file says of one function. Keys that are not here are ignored, as faas-cli ignores those it does not know.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Function {
    pub(crate) lang: Option<String>,
    pub(crate) handler: Option<String>,
    pub(crate) image: Option<String>,
    namespace: Option<String>,
    fprocess: Option<String>,
    environment: Option<Map<Option<String>>>,
    pub(crate) environment_file: Option<Vec<String>>,
    labels: Option<Map<Option<String>>>,
    annotations: Option<Map<Option<String>>>,
    limits: Option<Amounts>,
    requests: Option<Amounts>,
    secrets: Option<Vec<String>>,
    constraints: Option<Vec<String>>,
    #[serde(deserialize_with = "truth")]
    readonly_root_filesystem: Option<bool>,
    #[serde(deserialize_with = "truth")]
    skip_build: Option<bool>,
    pub(crate) build_args: Option<Map<Option<String>>>,
    pub(crate) build_options: Option<Vec<String>>,
    pub(crate) build_secrets: Option<Map<Option<String>>>,
    /// What YAML's merge key brings in.
    #[serde(rename = "<<")]
    inherited: Option<Mixed<Function>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Amounts {
    memory: Option<String>,
    cpu: Option<String>,
}

/// What the command line adds to each function of a stack.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    pub(crate) namespace: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) secrets: Vec<String>,
}

impl Function {
    /// Takes in what it inherits, where it says nothing itself.
    fn complete(mut self) -> Self {
        for base in self.inherited.take().map(|mixed| mixed.0).unwrap_or_default() {
            let base = base.complete();
            self = Self {
                lang: self.lang.or(base.lang),
                handler: self.handler.or(base.handler),
                image: self.image.or(base.image),
                namespace: self.namespace.or(base.namespace),
                fprocess: self.fprocess.or(base.fprocess),
                environment: self.environment.or(base.environment),
                environment_file: self.environment_file.or(base.environment_file),
                labels: self.labels.or(base.labels),
                annotations: self.annotations.or(base.annotations),
                limits: self.limits.or(base.limits),
                requests: self.requests.or(base.requests),
                secrets: self.secrets.or(base.secrets),
                constraints: self.constraints.or(base.constraints),
                readonly_root_filesystem: self.readonly_root_filesystem.or(base.readonly_root_filesystem),
                skip_build: self.skip_build.or(base.skip_build),
                build_args: self.build_args.or(base.build_args),
                build_options: self.build_options.or(base.build_options),
                build_secrets: self.build_secrets.or(base.build_secrets),
                inherited: None,
            };
        }
        self
    }

    /// The template that it is built with, if it is to be built.
    pub(crate) fn template(&self) -> Option<&str> {
        self.language().filter(|_| self.skip_build != Some(true))
    }

    /// Whether the same code would be built into the same module.
    pub(crate) fn is_built_like(&self, other: &Self) -> bool {
        let settings = |function: &Self| {
            (
                function.template().map(str::to_owned),
                strings(&function.build_args),
                function.build_options.clone(),
            )
        };
        settings(self) == settings(other)
    }

    /// The template that says what it is started with, whoever builds it (faas-cli); none if it says so itself.
    pub(crate) fn process_template(&self) -> Option<&str> {
        self.language().filter(|_| self.process().is_none())
    }

    fn language(&self) -> Option<&str> {
        self.lang.as_deref().filter(|lang| !lang.is_empty() && !lang.eq_ignore_ascii_case("dockerfile"))
    }

    fn process(&self) -> Option<&str> {
        self.fprocess.as_deref().filter(|process| !process.is_empty())
    }

    /// Its name in the namespace that the command line names, else that of the stack file.
    pub(crate) fn full_name(&self, name: &str, namespace: &str) -> runtime_api::Result<FunctionName> {
        let own = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        FunctionName::new(name, if namespace.is_empty() { own } else { namespace })
    }

    /// What is asked of the gateway. Files of variables beat variables, and the command line beats both (faas-cli).
    pub(crate) fn spec(
        &self,
        name: &str,
        image: String,
        template_process: Option<&str>,
        additions: &Additions,
    ) -> Result<FunctionSpec> {
        let full_name = self.full_name(name, &additions.namespace)?;
        let resources = |amounts: &Option<Amounts>| {
            let amounts = amounts.clone()?;
            Some(Resources {
                memory: amounts.memory.unwrap_or_default(),
                cpu: amounts.cpu.unwrap_or_default(),
            })
        };
        let mut env_vars = strings(&self.environment);
        for file in self.environment_file.iter().flatten() {
            env_vars.append(&mut read_variables(Path::new(file))?);
        }
        env_vars.extend(additions.env.clone());
        let mut secrets = self.secrets.clone().unwrap_or_default();
        secrets.extend(
            additions.secrets.iter().filter(|secret| !secrets.contains(secret)).cloned().collect::<Vec<_>>(),
        );
        let spec = FunctionSpec {
            service: name.to_owned(),
            image,
            namespace: full_name.namespace().to_owned(),
            env_process: self.process().or(template_process).unwrap_or_default().to_owned(),
            env_vars,
            constraints: self.constraints.clone().unwrap_or_default(),
            secrets,
            labels: strings(&self.labels).into_iter().chain(additions.labels.clone()).collect(),
            annotations: strings(&self.annotations)
                .into_iter()
                .chain(additions.annotations.clone())
                .collect(),
            limits: resources(&self.limits),
            requests: resources(&self.requests),
            read_only_root_filesystem: self.readonly_root_filesystem.unwrap_or_default(),
        };
        spec.memory_limit()?;
        Ok(spec)
    }
}

/// A key without a value has the empty one.
pub(crate) fn strings(map: &Option<Map<Option<String>>>) -> BTreeMap<String, String> {
    let pairs = map.iter().flat_map(|map| &map.0);
    pairs.map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())).collect()
}

/// A file of variables: a map below the key `environment`.
fn read_variables(file: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Variables {
        environment: Option<Map<Option<String>>>,
    }

    let text = read(file)?;
    let variables: Option<Variables> =
        serde_yaml_ng::from_str(&text).map_err(|error| mistake(file, &error.to_string()))?;
    Ok(strings(&variables.unwrap_or_default().environment))
}

/// Reads a file that a user wrote.
pub(crate) fn read(file: &Path) -> Result<String> {
    if file.to_str().is_some_and(|name| name.contains("://")) {
        let reason = format!("{} is an address: download it, and name the file", file.display());
        return Err(Mistakes::from(reason).into());
    }
    let opened = File::open(file).map_err(|error| mistake(file, &format!("it cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES)? + 1;
    opened
        .take(limit)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(mistake(file, &format!("it has more than {MAX_FILE_BYTES} bytes")).into());
    }
    String::from_utf8(bytes).map_err(|_| mistake(file, "it is not UTF-8 text").into())
}

/// A stack file's text, with the environment's variables in it.
fn replace_variables(file: &Path, text: &str) -> Result<String, Mistakes> {
    let environment = |name: &str| std::env::var(name).ok();
    variables::substitute(text, &environment, MAX_FILE_BYTES).map_err(|reason| mistake(file, &reason))
}

fn mistake(file: &Path, reason: &str) -> Mistakes {
    format!("{}: {reason}", file.display()).into()
}

/// Whether a name matches a pattern in which `*` stands for anything, also nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let (mut rest, mut parts) = (name, pattern.split('*'));
    match parts.next().and_then(|first| rest.strip_prefix(first)) {
        Some(after) => rest = after,
        None => return false,
    }
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
