use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use runtime_api::FunctionName;
use tokio::task::JoinSet;

use crate::{
    build::{self, BuildSettings},
    client::{ClientArguments, Gateway},
    deploy::time,
    deploy_stack::Deploying,
    follow::follow,
    stack::{Additions, Function, Stack, StackArguments},
    templates,
    terminal::{Lines, until_interrupted},
    watch::{Subject, Watcher},
};

/// Build, deploy and follow the functions of a stack file, again each time that a file is saved
///
/// Only what changed is built, and calls in flight finish on the version before. That version also goes on serving while a
/// build fails. What the functions write to their logs is shown as it comes. Ctrl-C ends it; the functions stay deployed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn up &                            a gateway, if there is none yet
  fawn new hello --lang rust-wasm
  fawn dev                             then change ./hello and call `fawn invoke hello`
  fawn dev -f stack.yml --filter api   one function of several
  fawn dev --no-logs")]
pub(crate) struct DevArguments {
    #[command(flatten)]
    stack: StackArguments,
    #[command(flatten)]
    client: ClientArguments,
    #[command(flatten)]
    build: BuildSettings,
    /// The functions' namespace [default: that of the stack file]
    #[arg(long, short, default_value = "")]
    namespace: String,
    /// How long to wait until a function is ready
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = time)]
    timeout: Duration,
    /// Do not show what the functions write to their logs
    #[arg(long)]
    no_logs: bool,
}

pub(crate) async fn run(arguments: DevArguments) -> Result<()> {
    let stack = arguments.stack.load()?;
    let gateway = Arc::new(arguments.client.gateway(stack.gateway.as_deref())?);
    // Who cannot deploy is told so before anything is built.
    gateway.time().await?;
    let session = Session {
        project: build::project()?,
        lines: Arc::new(Lines::of(stack.functions.keys())),
        additions: Additions { namespace: arguments.namespace.clone(), ..Additions::default() },
        serving: BTreeMap::new(),
        logs: JoinSet::new(),
        watcher: Watcher::new()?,
        gateway,
        stack,
        arguments,
    };
    until_interrupted(session.run()).await.map(drop)
}

struct Session {
    arguments: DevArguments,
    project: PathBuf,
    stack: Stack,
    gateway: Arc<Gateway>,
    additions: Additions,
    lines: Arc<Lines>,
    /// How each function was when it was last deployed; it is not here while its last build or deployment failed.
    serving: BTreeMap<String, Function>,
    /// Those whose logs are followed.
    logs: JoinSet<Result<()>>,
    watcher: Watcher,
}

impl Session {
    async fn run(mut self) -> Result<()> {
        let mut subjects: Vec<_> = self.stack.functions.keys().cloned().map(Subject::Function).collect();
        let mut followed = Vec::new();
        loop {
            // What changes from here on is seen; and what went and came again needs to be watched anew.
            self.watcher.watch(roots(&self.project, &self.stack))?;
            for subject in subjects {
                match subject {
                    Subject::Function(name) => self.refresh(&name, false).await,
                    Subject::Stack => self.reload().await,
                }
            }
            self.follow_logs(&mut followed).await?;
            writeln!(io::stderr(), "waiting for changes; Ctrl-C ends this")
                .context("standard error is closed")?;
            subjects = self.next_changes().await?;
        }
    }

    /// Waits for changes, and meanwhile for an end of the logs' output.
    async fn next_changes(&mut self) -> Result<Vec<Subject>> {
        loop {
            tokio::select! {
                changed = self.watcher.changed() => return Ok(changed?.into_iter().collect()),
                Some(ended) = self.logs.join_next() => ended??,
            }
        }
    }

    /// Builds and deploys a function if anything about it changed, and says how that went.
    async fn refresh(&mut self, name: &str, settings_changed: bool) {
        let Some(function) = self.stack.functions.get(name).cloned() else { return };
        let began = Instant::now();
        let was_serving = self.serving.contains_key(name);
        match self.try_refresh(name, &function, settings_changed || !was_serving).await {
            Ok(None) => {}
            Ok(Some(url)) => {
                self.serving.insert(name.to_owned(), function);
                let took = began.elapsed().as_secs_f64();
                self.lines.say(name, &format!("{name} is ready after {took:.1} s: {url}"));
            }
            Err(error) => {
                self.serving.remove(name);
                self.lines.say(
                    name,
                    &format!("{name} is not deployed, and what was serving still does: {error:#}"),
                );
            }
        }
    }

    /// The function's address, if it was deployed.
    async fn try_refresh(
        &self,
        name: &str,
        function: &Function,
        at_any_rate: bool,
    ) -> Result<Option<String>> {
        let Self { arguments, project, lines, .. } = self;
        let built = match build::prepare(project, &self.stack, name, function)? {
            Ok(source) if !at_any_rate && !source.changed() => return Ok(None),
            Ok(source) => Some(build::compile(&source, name, function, &arguments.build, lines).await?),
            Err(_) if !at_any_rate => return Ok(None),
            Err(_) => None,
        };
        let deploying = Deploying { project, gateway: &self.gateway, additions: &self.additions };
        let tell = |_| {};
        let deployed = deploying.deploy(name, function, built.as_ref(), arguments.timeout, &tell).await?;
        Ok(Some(deployed.url))
    }

    /// Reads the stack file again, and deploys what is otherwise in it.
    async fn reload(&mut self) {
        match self.arguments.stack.load() {
            Ok(stack) => {
                let copies_alike = stack.copy == self.stack.copy;
                self.stack = stack;
                let names: Vec<String> = self.stack.functions.keys().cloned().collect();
                for name in names {
                    let function = self.stack.functions.get(&name);
                    // Files of variables may have changed without a word in the stack file.
                    let files = function.is_some_and(|function| function.environment_file.is_some());
                    let alike = self.serving.get(&name) == function && copies_alike && !files;
                    if !alike {
                        self.refresh(&name, true).await;
                    }
                }
            }
            Err(error) => self.lines.say("", &format!("the functions stay as they are: {error:#}")),
        }
    }

    /// Begins to follow the logs of functions that are deployed for the first time.
    async fn follow_logs(&mut self, followed: &mut Vec<FunctionName>) -> Result<()> {
        if self.arguments.no_logs {
            return Ok(());
        }
        for (name, function) in &self.serving {
            let full_name = function.full_name(name, &self.additions.namespace)?;
            if !followed.contains(&full_name) {
                followed.push(full_name.clone());
                self.logs.spawn(follow(self.gateway.clone(), full_name, self.lines.clone()));
            }
        }
        Ok(())
    }
}

/// What the functions are made of, and what says how they are deployed.
fn roots(project: &Path, stack: &Stack) -> Vec<(PathBuf, Subject)> {
    let mut roots = Vec::new();
    let absolute = |path: &Path| {
        let whole = project.join(path);
        // Below a folder that is gone, as it is written.
        whole.canonicalize().unwrap_or_else(|_| whole.components().collect())
    };
    for (name, function) in &stack.functions {
        let subject = || Subject::Function(name.clone());
        if let Some(language) = function.template() {
            let paths = function.handler.iter().chain(&stack.copy).map(PathBuf::from);
            roots.extend(paths.map(|path| (absolute(&path), subject())));
            roots.push((absolute(&Path::new(templates::FOLDER).join(language)), subject()));
        }
        let files = function.environment_file.iter().flatten();
        roots.extend(files.map(|file| (absolute(Path::new(file)), Subject::Stack)));
    }
    roots.push((absolute(&stack.file), Subject::Stack));
    roots
}
