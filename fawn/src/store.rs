use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use gateway_server::{StoreFunction, StoreList};
use reqwest::{Url, header::LOCATION};
use runtime_api::{FunctionSpec, nearest};
use serde_json::json;

use crate::{
    client::{ClientArguments, beginning, http_client, parse_gateway, read_at_most},
    config::Environment,
    deploy::{AddedArguments, report, time},
    progress::Spinner,
    roll_out::roll_out,
    stack::Additions,
    terminal::printable,
    usage::Mistakes,
};

/// Where a gateway of ours has its list.
const LIST_PATH: &str = "store/functions.json";
/// What is shown of an answer that is no list.
const MAX_REASON_BYTES: usize = 2000;
/// Names are shorter (RFC 1035 §2.3.4); what is no name is not to push everything else away.
const MAX_COLUMN: usize = 40;

/// List, describe and deploy functions that others made
///
/// A store is a list of functions with their images, in OpenFaaS's form. A gateway that was started with --store has one.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn store list                          what the gateway's store has
  fawn store describe resize
  fawn store deploy resize --name thumbs --env WIDTH=100
  fawn store list --url https://example.com/functions.json --json

Modules run on every machine: the image for x86_64 is taken, else any. The gateway must be able to have that image.
Credentials are those of `faas-cli login`; for a gateway on this machine, those in its data directory.")]
pub(crate) struct StoreArguments {
    #[command(subcommand)]
    command: StoreCommand,
    /// The store's list [default: $OPENFAAS_STORE, else /store/functions.json of the gateway]
    #[arg(long, short, global = true, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    client: ClientArguments<false>,
    /// Print JSON instead of words
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// What the store has
    #[command(visible_alias = "ls")]
    List,
    /// What is known of a function
    #[command(visible_alias = "inspect")]
    Describe {
        /// The function's name in the store
        name: String,
    },
    /// Deploys a function, as the store describes it and with what is added here
    Deploy {
        /// The function's name in the store
        function: String,
        /// What to deploy it as [default: its name in the store]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        added: AddedArguments,
        /// How long to wait until the function is ready
        #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = time)]
        timeout: Duration,
    },
}

pub(crate) async fn run(arguments: StoreArguments) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let url = arguments.list_url(&environment)?;
    let list = fetch(&url).await?;
    let text = match &arguments.command {
        StoreCommand::List if arguments.json => json!(list.functions).to_string() + "\n",
        StoreCommand::List => table(&list),
        StoreCommand::Describe { name } => {
            let function = find(&list, name)?;
            if arguments.json { json!(function).to_string() + "\n" } else { in_words(function) }
        }
        StoreCommand::Deploy { function, name, added, timeout } => {
            let spec = spec(find(&list, function)?, name.as_deref(), added.additions())?;
            return deploy(&arguments, &spec, *timeout).await;
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output cannot be written"),
    }
}

async fn deploy(arguments: &StoreArguments, spec: &FunctionSpec, longest: Duration) -> Result<()> {
    let function = spec.name()?;
    let gateway = arguments.client.gateway(None)?;
    let spinner = Spinner::start(format!("deploying {}", function.name()));
    let deployment = roll_out(&gateway, spec, longest, &|stage| spinner.say(stage)).await?;
    drop(spinner);
    report(arguments.json, &function, spec, deployment, &gateway.function_url(&function))
}

impl StoreArguments {
    fn list_url(&self, environment: Environment<'_>) -> Result<Url, Mistakes> {
        let variable = || environment("OPENFAAS_STORE").filter(|address| !address.is_empty());
        match self.url.clone().or_else(variable) {
            Some(chosen) => parse_url(&chosen),
            None => {
                let gateway = parse_gateway(&self.client.address(None, environment))?;
                parse_url(&format!("{}/{LIST_PATH}", gateway.as_str().trim_end_matches('/')))
            }
        }
    }
}

/// Neither mistake shows the address: it may hold a password.
fn parse_url(text: &str) -> Result<Url, Mistakes> {
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let example = "https://example.com/functions.json";
    match Url::parse(text).ok().filter(usable) {
        Some(url) if url.username().is_empty() && url.password().is_none() => Ok(url),
        Some(_) => {
            let mistake =
                format!("the store's address has a user or password in it: write it like {example}");
            Err(mistake.into())
        }
        None => Err(format!("the store's address is none: write it like {example}").into()),
    }
}

/// Nobody's credentials go there: lists are public.
async fn fetch(url: &Url) -> Result<StoreList> {
    let asked = http_client(url)?.get(url.clone()).send().await;
    let url = shown(url);
    let mut answer = asked.map_err(|error| {
        let advice = "start a gateway with `fawn up --store FOLDER`, or name a store with --url";
        anyhow::Error::new(error.without_url()).context(format!("no store answers at {url}: {advice}"))
    })?;
    let status = answer.status();
    if status.is_redirection() {
        let target = answer.headers().get(LOCATION).and_then(|target| target.to_str().ok());
        let target = target.and_then(|target| target.split(['?', '#']).next());
        let target = target.map_or("another address".into(), printable);
        bail!("the store's list is not at {url}, which refers to {target}: give the right one with --url");
    }
    if !status.is_success() {
        let said = beginning(&mut answer, MAX_REASON_BYTES).await;
        bail!("there is no list of a store at {url}: {status}: {said}");
    }
    let mut bytes = Vec::new();
    let read = read_at_most(&mut answer, StoreList::MAX_BYTES, &mut bytes).await;
    read.with_context(|| format!("the list at {url}"))?;
    let list = StoreList::parse(&bytes);
    list.map_err(|error| anyhow::anyhow!("{url} has no list of a store: {}", printable(&error.to_string())))
}

/// An address as it may be told: a query may hold a token.
fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown
}

fn find<'a>(list: &'a StoreList, name: &str) -> Result<&'a StoreFunction, Mistakes> {
    let found = list.functions.iter().find(|function| function.name == name);
    found.ok_or_else(|| {
        let meant = nearest(name, list.functions.iter().map(|function| function.name.as_str()));
        let meant = meant.map(|meant| format!("{} may be meant; ", printable(meant))).unwrap_or_default();
        format!("the store has no function {name:?}: {meant}`fawn store list` lists them").into()
    })
}

/// What faas-cli's `store deploy` sends; what the command line adds beats what the store says.
fn spec(function: &StoreFunction, name: Option<&str>, added: Additions) -> Result<FunctionSpec, Mistakes> {
    let name = name.unwrap_or(&function.name);
    let Some(image) = function.image() else {
        return Err(format!("{:?} of the store has no image: it cannot be deployed", function.name).into());
    };
    let spec = FunctionSpec {
        service: name.to_owned(),
        image: image.to_owned(),
        namespace: added.namespace,
        env_process: function.fprocess.clone(),
        env_vars: function.environment.clone().into_iter().chain(added.env).collect(),
        labels: function.labels.clone().into_iter().chain(added.labels).collect(),
        annotations: function.annotations.clone().into_iter().chain(added.annotations).collect(),
        secrets: added.secrets,
        read_only_root_filesystem: function.read_only_root_filesystem,
        ..FunctionSpec::default()
    };
    spec.name().map_err(|error| printable(&error.to_string()))?;
    Ok(spec)
}

fn table(list: &StoreList) -> String {
    if list.functions.is_empty() {
        return "the store is empty\n".into();
    }
    let row = |function: &StoreFunction| {
        let about = if function.description.is_empty() { &function.title } else { &function.description };
        let missing = if function.image().is_none() { "(cannot be deployed: it has no image) " } else { "" };
        [&function.name, &function.author, &format!("{missing}{about}")].map(|text| printable(text))
    };
    let rows: Vec<_> = [["FUNCTION", "AUTHOR", "DESCRIPTION"].map(str::to_owned)]
        .into_iter()
        .chain(list.functions.iter().map(row))
        .collect();
    let width = |column: fn(&[String; 3]) -> &String| {
        let widths = rows.iter().map(column).map(|text| text.chars().count());
        widths.max().unwrap_or_default().min(MAX_COLUMN)
    };
    let (first, second) = (width(|[name, ..]| name), width(|[_, author, _]| author));
    rows.iter().map(|[name, author, about]| format!("{name:first$}  {author:second$}  {about}\n")).collect()
}

fn in_words(function: &StoreFunction) -> String {
    let read_only = if function.read_only_root_filesystem { "yes" } else { "" };
    let mut lines = vec![
        ("name", function.name.clone()),
        ("title", function.title.clone()),
        ("author", function.author.clone()),
        ("description", function.description.clone()),
        ("image", function.image().unwrap_or("none: it cannot be deployed").to_owned()),
        ("source", function.repo_url.clone()),
        ("fprocess", function.fprocess.clone()),
        ("read-only", read_only.to_owned()),
    ];
    for (label, pairs) in [
        ("environment", &function.environment),
        ("label", &function.labels),
        ("annotation", &function.annotations),
    ] {
        lines.extend(pairs.iter().map(|(name, value)| (label, format!("{name}={value}"))));
    }
    lines.retain(|(_, text)| !text.is_empty());
    lines.iter().map(|(label, text)| format!("{label:<11}  {}\n", printable(text))).collect()
}

#[cfg(test)]
mod tests;
