use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use runtime_api::{Digest, FunctionName};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    build::{self, BuildLimit, Built, Source},
    client::{ClientArguments, Gateway},
    deploy::time,
    deploy_stack::{Deployed, Deploying},
    follow::follow,
    shrinkwrap::Busy,
    stack::{Additions, Function, Stack, StackArguments},
    templates,
    terminal::{Lines, until_interrupted},
    watch::{Subject, Watcher},
};

/// How often a folder is asked for in which another process builds.
const TURN: Duration = Duration::from_millis(250);

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
    build: BuildLimit,
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
    let project = build::project()?;
    let session = Session {
        lines: Arc::new(Lines::of(stack.functions.keys())),
        additions: Additions { namespace: arguments.namespace.clone(), ..Additions::default() },
        serving: BTreeMap::new(),
        failed: BTreeSet::new(),
        followed: BTreeSet::new(),
        logs: JoinSet::new(),
        watcher: Watcher::new(&project)?,
        project,
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
    /// What was deployed last of each function.
    serving: BTreeMap<String, Serving>,
    /// Those whose last build or deployment failed.
    failed: BTreeSet<String>,
    /// Those whose logs are followed.
    followed: BTreeSet<FunctionName>,
    logs: JoinSet<Result<()>>,
    watcher: Watcher,
}

/// A function as this session deployed it. Others may build in the same folder, so what lies there says nothing of that.
struct Serving {
    function: Function,
    /// What it was built from, and what came of it; None is a function that is deployed by its image.
    source: Option<Digest>,
    built: Option<Built>,
}

impl Serving {
    /// Its module, if a build of this function would make it again and nobody else has built there since.
    fn still_built(&self, function: &Function) -> Option<Built> {
        let built = self.built.clone()?;
        (self.function.is_built_like(function) && built.read().is_ok()).then_some(built)
    }
}

impl Session {
    async fn run(mut self) -> Result<()> {
        let mut subjects: Vec<_> = self.stack.functions.keys().cloned().map(Subject::Function).collect();
        loop {
            // What changes from here on is seen; and what went and came again needs to be watched anew.
            self.watcher.watch(roots(&self.project, &self.stack))?;
            for subject in subjects {
                match subject {
                    Subject::Function(name) => self.refresh(&name, false).await,
                    Subject::Stack => self.reload().await?,
                }
            }
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

    /// Deploys a function if anything about it changed, once what that takes is built, and says how that went.
    async fn refresh(&mut self, name: &str, settings_changed: bool) {
        let Some(function) = self.stack.functions.get(name).cloned() else { return };
        let began = Instant::now();
        let at_any_rate = settings_changed || self.failed.contains(name) || !self.serving.contains_key(name);
        match self.try_refresh(name, &function, at_any_rate).await {
            Ok(None) => {}
            Ok(Some((deployed, serving))) => {
                self.failed.remove(name);
                self.serving.insert(name.to_owned(), serving);
                let took = began.elapsed().as_secs_f64();
                self.lines.say(name, &format!("{name} is ready after {took:.1} s: {}", deployed.url));
                self.follow_log(deployed.name);
            }
            Err(error) => {
                self.failed.insert(name.to_owned());
                let before = match self.serving.contains_key(name) {
                    true => ", and what was serving still does",
                    false => "",
                };
                self.lines.say(name, &format!("{name} is not deployed{before}: {error:#}"));
            }
        }
    }

    /// What serves now, if it was deployed.
    async fn try_refresh(
        &self,
        name: &str,
        function: &Function,
        at_any_rate: bool,
    ) -> Result<Option<(Deployed, Serving)>> {
        let Self { arguments, project, lines, .. } = self;
        // Until it is uploaded, nobody else builds there.
        let prepared = self.prepare(name, function).await?;
        let source = prepared.as_ref().ok().map(Source::digest).transpose()?;
        let same = self.serving.get(name).filter(|serving| serving.source == source);
        if !at_any_rate && same.is_some() {
            return Ok(None);
        }
        let built = match (&prepared, same.and_then(|serving| serving.still_built(function))) {
            (_, Some(built)) => Some(built),
            (Ok(prepared), None) => {
                Some(build::compile(prepared, name, function, &arguments.build, lines).await?)
            }
            (Err(why), None) => {
                lines.say(name, &format!("{name} is not built here, but deployed by its image: {why}"));
                None
            }
        };
        let deploying = Deploying { project, gateway: &self.gateway, additions: &self.additions };
        let tell = |_| {};
        let deployed = deploying.deploy(name, function, built.as_ref(), arguments.timeout, &tell).await?;
        Ok(Some((deployed, Serving { function: function.clone(), source, built })))
    }

    /// Brings a function's folder up to date, once nobody else builds there; or says why it is deployed by its image.
    async fn prepare(&self, name: &str, function: &Function) -> Result<Result<Source, String>> {
        let Self { arguments, project, stack, lines, .. } = self;
        let mut told = false;
        let free = async {
            loop {
                match build::prepare(project, stack, name, function) {
                    Err(error) if error.is::<Busy>() => {
                        if !told {
                            lines.say(
                                name,
                                &format!("{name} is being built by another `fawn`, which is waited for"),
                            );
                            told = true;
                        }
                        sleep(TURN).await;
                    }
                    prepared => return prepared,
                }
            }
        };
        let longest = arguments.build.build_timeout;
        let late = |_| anyhow!("another `fawn` has been building it for more than {longest:?}: end that one");
        timeout(longest, free).await.map_err(late)?
    }

    /// Reads the stack file again, and deploys what is otherwise in it.
    async fn reload(&mut self) -> Result<()> {
        let (stack, gateway) = match self.read_again().await {
            Ok(read) => read,
            Err(error) => {
                self.lines.say("", &format!("the functions stay as they are: {error:#}"));
                return Ok(());
            }
        };
        if let Some(gateway) = gateway {
            // Nothing of what this session deployed is there.
            self.gateway = Arc::new(gateway);
            self.serving.clear();
            self.followed.clear();
            self.logs = JoinSet::new();
        }
        let copies_alike = stack.copy == self.stack.copy;
        self.stack = stack;
        let names: Vec<String> = self.stack.functions.keys().cloned().collect();
        self.lines.know(&names);
        self.serving.retain(|name, _| self.stack.functions.contains_key(name));
        self.failed.retain(|name| self.stack.functions.contains_key(name));
        // What is saved while functions are built is seen also of those that are new.
        self.watcher.watch(roots(&self.project, &self.stack))?;
        for name in names {
            let function = self.stack.functions.get(&name);
            // Files of variables may have changed without a word in the stack file.
            let files = function.is_some_and(|function| function.environment_file.is_some());
            let before = self.serving.get(&name).map(|serving| &serving.function);
            if before != function || !copies_alike || files || self.failed.contains(&name) {
                self.refresh(&name, true).await;
            }
        }
        Ok(())
    }

    /// The stack file as it is now, and the gateway that it means if that is another.
    async fn read_again(&self) -> Result<(Stack, Option<Gateway>)> {
        let (stack, client) = (self.arguments.stack.load()?, &self.arguments.client);
        let address = |stack: &Stack| client.address(stack.gateway.as_deref(), &|name| env::var(name).ok());
        let now = address(&stack);
        if now == address(&self.stack) {
            return Ok((stack, None));
        }
        let gateway = client.gateway(stack.gateway.as_deref())?;
        gateway.time().await?;
        self.lines.say(
            "",
            &format!("functions are deployed to {now} from now on; what the gateway before has stays there"),
        );
        Ok((stack, Some(gateway)))
    }

    /// Begins to follow a function's log, unless that is done already or not wanted.
    fn follow_log(&mut self, function: FunctionName) {
        if !self.arguments.no_logs && self.followed.insert(function.clone()) {
            self.logs.spawn(follow(self.gateway.clone(), function, self.lines.clone()));
        }
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
