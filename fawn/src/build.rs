use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures_util::{StreamExt, stream};
use runtime_api::Digest;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    deploy::time,
    shrinkwrap::{self, Wrapped},
    stack::{Function, Stack, StackArguments, strings},
    templates::{BUILD_SCRIPT, Template},
    terminal::{Lines, until_interrupted},
    usage::Mistakes,
};

/// What a build leaves in the function's folder.
pub(crate) const MODULE: &str = "function.wasm";
/// The build argument that tells a template which packages are wanted (faas-cli).
const PACKAGES: &str = "ADDITIONAL_PACKAGE";
/// Beyond this, a line of a build's output is broken.
const MAX_LINE_BYTES: usize = 16 << 10;
/// What a process that left the build's group may still write once the build has ended is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Build the functions of a stack file, without Docker and without a registry
///
/// Each function's template and handler are copied to build/NAME, where the template's build.sh makes function.wasm. It
/// finds there what the last build left, so that a second build is fast. Templates that the project does not have are taken
/// from this binary; those of faas-cli that need Docker are left to faas-cli.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fawn new hello --lang rust-wasm             a function to build, with its stack file
  fawn build                                  every function of stack.yaml or stack.yml
  fawn build -f stack.yml --filter 'api-*'    some of them
  fawn build --parallel 4 && fawn deploy -f stack.yml --no-build")]
pub(crate) struct BuildArguments {
    #[command(flatten)]
    stack: StackArguments,
    #[command(flatten)]
    settings: BuildSettings,
    /// Print one JSON list instead of words
    #[arg(long)]
    json: bool,
}

/// How functions are built.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildSettings {
    /// How many functions are built at once
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) parallel: u8,
    #[command(flatten)]
    pub(crate) each: BuildLimit,
}

/// How each function is built.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildLimit {
    /// How long one build may take
    #[arg(long, default_value = "30m", value_name = "DURATION", value_parser = time)]
    pub(crate) build_timeout: Duration,
}

/// A module that was built.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) module: PathBuf,
    pub(crate) bytes: usize,
    /// Of what was looked at. The modules of a large stack together may not fit into memory.
    digest: Digest,
    /// How it will be called, in words.
    pub(crate) world: &'static str,
    pub(crate) took: Duration,
}

/// A function that can be built here, and with what.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) template: Template,
    wrapped: Wrapped,
}

pub(crate) async fn run(arguments: BuildArguments) -> Result<()> {
    let stack = arguments.stack.load()?;
    let lines = Lines::of(stack.functions.keys());
    let project = project()?;
    let built =
        until_interrupted(async { Ok(build_all(&project, &stack, &arguments.settings, &lines).await) })
            .await?;
    let Some(built) = built else { bail!("interrupted: nothing more is built") };
    let (mut list, mut failed) = (Vec::new(), 0);
    for (name, result) in &built {
        match result {
            Ok(Some(Built { module, bytes, world, .. })) => {
                list.push(json!({"name": name, "module": module, "sizeBytes": bytes, "world": world}));
            }
            Ok(None) => {}
            Err(error) => {
                failed += 1;
                list.push(json!({"name": name, "error": format!("{error:#}")}));
            }
        }
    }
    if arguments.json {
        writeln!(io::stdout(), "{}", json!(list))?;
    }
    ensure!(failed == 0, "{failed} of {} functions cannot be built", built.len());
    Ok(())
}

/// The folder that the user is in: paths of a stack file start there (faas-cli).
pub(crate) fn project() -> Result<PathBuf> {
    std::env::current_dir().and_then(|folder| folder.canonicalize()).context("this folder cannot be read")
}

/// Builds each function, and says how it went. None is a function that is deployed by its image.
pub(crate) async fn build_all(
    project: &Path,
    stack: &Stack,
    settings: &BuildSettings,
    lines: &Lines,
) -> Vec<(String, Result<Option<Built>>)> {
    let builds = stack.functions.iter().map(|(name, function)| async move {
        let built = build_one(project, stack, name, function, settings, lines).await;
        match &built {
            Ok(Some(built)) => lines.say(name, &in_words(name, built)),
            Ok(None) => {}
            Err(error) => lines.say(name, &format!("{name} cannot be built: {error:#}")),
        }
        (name.clone(), built)
    });
    let mut built: Vec<_> = stream::iter(builds).buffer_unordered(settings.parallel.into()).collect().await;
    built.sort_by(|(one, _), (other, _)| one.cmp(other));
    built
}

async fn build_one(
    project: &Path,
    stack: &Stack,
    name: &str,
    function: &Function,
    settings: &BuildSettings,
    lines: &Lines,
) -> Result<Option<Built>> {
    match prepare(project, stack, name, function)? {
        Ok(source) => compile(&source, name, function, &settings.each, lines).await.map(Some),
        Err(why) => {
            lines.say(name, &format!("{name} is not built here: {why}"));
            Ok(None)
        }
    }
}

fn in_words(name: &str, built: &Built) -> String {
    let Built { bytes, world, took, .. } = built;
    format!("{name} is built: {} KiB, a {world}, in {:.1} s", bytes.div_ceil(1024), took.as_secs_f64())
}

/// Brings a function's folder up to date; or says why it is deployed by its image instead.
pub(crate) fn prepare(
    project: &Path,
    stack: &Stack,
    name: &str,
    function: &Function,
) -> Result<Result<Source, String>> {
    let Some(language) = function.template() else {
        return Ok(Err("it has no `lang`, or skip_build".into()));
    };
    let template = Template::find(project, language).with_context(|| {
        let source = stack.templates.get(language).filter(|source| !source.is_empty());
        let source = source.map(|source| format!(" from {source}")).unwrap_or_default();
        format!("functions.{name} has template {language}{source}; with `skip_build: true` its image is deployed as it is")
    })?;
    if !template.builds_modules() {
        return Ok(Err(format!(
            "template {language} has no {BUILD_SCRIPT}, so it needs Docker: use `faas-cli build`"
        )));
    }
    if function.build_secrets.as_ref().is_some_and(|secrets| !secrets.0.is_empty()) {
        let mistake =
            format!("functions.{name}.build_secrets are for Docker: set variables for `fawn build` instead");
        return Err(Mistakes::from(mistake).into());
    }
    let handler = function.handler.as_deref().filter(|handler| !handler.is_empty());
    let handler = handler.ok_or_else(|| {
        Mistakes::from(format!("functions.{name}.handler is missing: name the folder of its code"))
    })?;
    let wrapped = shrinkwrap::wrap(project, name, &template, Path::new(handler), &stack.copy)?;
    Ok(Ok(Source { template, wrapped }))
}

impl Source {
    /// What it is built from: another digest means other sources.
    pub(crate) fn digest(&self) -> Result<Digest> {
        self.wrapped.digest()
    }
}

/// Runs the template's script, whose output is shown as it comes, and looks at the module that it made.
pub(crate) async fn compile(
    source: &Source,
    name: &str,
    function: &Function,
    limit: &BuildLimit,
    lines: &Lines,
) -> Result<Built> {
    let (folder, began) = (&source.wrapped.folder, Instant::now());
    let module = folder.join(MODULE);
    // What is there afterwards was made now.
    if module.symlink_metadata().is_ok() {
        fs::remove_file(&module).with_context(|| format!("{} cannot be removed", module.display()))?;
    }
    lines.say(name, &format!("{name} is being built with {}", source.template.language));
    let mut command = Command::new("sh");
    command.arg(BUILD_SCRIPT).current_dir(folder).envs(variables(name, function, &source.template)?);
    let status = timeout(limit.build_timeout, show(&mut command, name, lines)).await;
    let status =
        status.with_context(|| format!("{BUILD_SCRIPT} takes more than {:?}", limit.build_timeout))??;
    ensure!(status.success(), "{BUILD_SCRIPT} of template {} ended with {status}", source.template.language);
    Ok(Built { took: began.elapsed(), ..inspect(module)? })
}

/// The module that an earlier build made.
pub(crate) fn last_built(project: &Path, name: &str) -> Result<Built> {
    let module = project.join(shrinkwrap::FOLDER).join(name).join(MODULE);
    inspect(module).context("the last build cannot be deployed: build it with `fawn build`")
}

/// Looks at a module, without compiling it. How large it may be is the gateway's to say.
fn inspect(module: PathBuf) -> Result<Built> {
    let there = module
        .metadata()
        .with_context(|| format!("there is no {}: {BUILD_SCRIPT} is to make it", module.display()))?;
    ensure!(there.is_file(), "{} is no file", module.display());
    let bytes = fs::read(&module).with_context(|| format!("{} cannot be read", module.display()))?;
    let found = runtime_wasm::inspect(&bytes).with_context(|| format!("{MODULE} is no module"))?;
    let world = found.world().with_context(|| format!("{MODULE} would not run"))?.describe();
    let digest = Digest(Sha256::digest(&bytes).into());
    Ok(Built { module, bytes: bytes.len(), digest, world, took: Duration::ZERO })
}

impl Built {
    /// The module as it was looked at.
    ///
    /// # Errors
    /// It cannot be read, or is another by now: the next build may have begun since.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let path = self.module.display();
        let bytes = fs::read(&self.module).with_context(|| format!("{path} cannot be read any more"))?;
        let digest = Digest(Sha256::digest(&bytes).into());
        ensure!(digest == self.digest, "{path} was changed since it was built: build and deploy it again");
        Ok(bytes)
    }
}

/// What the script finds in its environment besides ours.
fn variables(
    name: &str,
    function: &Function,
    template: &Template,
) -> Result<Vec<(String, String)>, Mistakes> {
    let mut variables = strings(&function.build_args);
    let mut packages = template.packages(function.build_options.as_deref().unwrap_or_default())?;
    if let Some(more) = variables.remove(PACKAGES) {
        packages.extend(more.split_whitespace().map(str::to_owned));
    }
    if !packages.is_empty() {
        packages.sort();
        packages.dedup();
        variables.insert(PACKAGES.into(), packages.join(" "));
    }
    for (key, value) in &variables {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("functions.{name}.build_args: {key:?} cannot be a variable").into());
        }
    }
    Ok(variables.into_iter().collect())
}

/// Runs a program to its end and shows what it says, a line at a time.
async fn show(command: &mut Command, name: &str, lines: &Lines) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
    let mut group = Group { id: child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)), child };
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let said = async {
        tokio::try_join!(copy_lines(stdout, name, lines), copy_lines(stderr, name, lines)).map(drop)
    };
    tokio::pin!(said);
    tokio::select! {
        said = &mut said => {
            said.context("the build's output cannot be read")?;
            Ok(group.wait().await?)
        }
        ended = group.wait() => {
            if let Ok(said) = timeout(LAST_WORDS, said).await {
                said.context("the build's output cannot be read")?;
            }
            Ok(ended?)
        }
    }
}

/// A program with all that it starts, which end with it, or else with this value.
struct Group {
    child: Child,
    /// Until it is ended: later, others may have the number.
    id: Option<Pid>,
}

impl Group {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = self.child.wait().await;
        self.end();
        ended
    }

    fn end(&mut self) {
        if let Some(id) = self.id.take() {
            // There may be nothing left of it.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

async fn copy_lines(stream: Option<impl AsyncRead + Unpin>, name: &str, lines: &Lines) -> io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let (mut buffer, mut line) = ([0; 4096], Vec::new());
    loop {
        let count = stream.read(&mut buffer).await?;
        for byte in buffer.iter().take(count) {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() == MAX_LINE_BYTES {
                lines.say(name, String::from_utf8_lossy(&line).trim_end_matches('\r'));
                line.clear();
            }
        }
        if count == 0 {
            if !line.is_empty() {
                lines.say(name, &String::from_utf8_lossy(&line));
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project whose one function is built by this script.
    async fn build(script: &str, function: &str) -> Result<Built> {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().canonicalize().unwrap();
        fs::create_dir_all(project.join("template/t")).unwrap();
        fs::create_dir_all(project.join("f")).unwrap();
        let settings = "build_options: [{name: dev, packages: [make, gcc]}]\n";
        fs::write(project.join("template/t/template.yml"), settings).unwrap();
        fs::write(project.join("template/t/build.sh"), script).unwrap();
        let module = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
        fs::write(project.join("f/module"), module).unwrap();
        let text = format!(
            "provider: {{name: openfaas}}\nfunctions: {{f: {{lang: t, handler: ./f, {function}}}}}\n"
        );
        let stack = Stack::parse(Path::new("stack.yml"), &text).unwrap();
        let settings =
            BuildSettings { parallel: 1, each: BuildLimit { build_timeout: Duration::from_secs(60) } };
        let lines = Lines::of(stack.functions.keys());
        let (_, built) = build_all(&project, &stack, &settings, &lines).await.pop().unwrap();
        built.map(|built| built.unwrap())
    }

    #[tokio::test]
    async fn a_script_makes_a_module() {
        let built = build("cp function/module function.wasm", "").await.unwrap();
        assert_eq!(built.world, "WASI preview 1 command module");
    }

    #[test]
    fn what_is_deployed_is_what_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join(MODULE);
        let command = |text: &str| wat::parse_str(format!("(module (func (export {text:?})))")).unwrap();
        fs::write(&module, command("_start")).unwrap();
        let built = inspect(module.clone()).unwrap();
        assert_eq!(built.read().unwrap(), command("_start"));
        fs::write(&module, command("_other")).unwrap();
        let error = built.read().unwrap_err().to_string();
        assert!(error.contains("was changed since"), "{error}");
    }

    #[tokio::test]
    async fn a_build_that_made_nothing_that_runs_fails() {
        for (script, expected) in [
            ("exit 3", "exit status: 3"),
            ("true", "there is no "),
            ("mkdir function.wasm", "is no file"),
            ("echo hello > function.wasm", "is no module"),
            (r"printf '\000asm\001\000\000\000' > function.wasm", "would not run"),
        ] {
            let error = format!("{:#}", build(script, "").await.unwrap_err());
            assert!(error.contains(expected), "{script}: {error}");
        }
    }

    #[tokio::test]
    async fn arguments_and_packages_are_variables_of_the_script() {
        let script =
            "test \"$MODE $ADDITIONAL_PACKAGE\" = \"1.0 gcc make zip\" && cp function/module function.wasm";
        let function = "build_args: {MODE: 1.0, ADDITIONAL_PACKAGE: zip make}, build_options: [dev]";
        build(script, function).await.unwrap();
        for (function, expected) in [
            ("build_options: [none]", "no build option none"),
            ("build_args: {'a=b': c}", "cannot be a variable"),
            ("build_secrets: {a: b}", "build_secrets are for Docker"),
        ] {
            let error = format!("{:#}", build("true", function).await.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    async fn until<T>(look: impl Fn() -> Option<T>) -> T {
        let seen = async {
            loop {
                match look() {
                    Some(seen) => return seen,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        timeout(Duration::from_secs(60), seen).await.unwrap()
    }

    async fn until_gone(pid: &str) {
        let stat = Path::new("/proc").join(pid.trim()).join("stat");
        let is_alive = |stat: &String| !stat.contains(") Z ");
        until(|| fs::read_to_string(&stat).ok().filter(is_alive).is_none().then_some(())).await;
    }

    #[tokio::test]
    async fn nothing_that_a_build_started_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new && mv {0}.new {0}; wait", pid.display());
        let lines = Lines::of([]);
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let pid = tokio::select! {
            _ = show(&mut command, "f", &lines) => panic!("it ended"),
            pid = until(|| fs::read_to_string(&pid).ok()) => pid,
        };
        until_gone(&pid).await;
    }

    #[tokio::test]
    async fn a_background_process_ends_with_the_build() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        for output in ["", "> /dev/null 2>&1"] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("sleep 1000 {output} & echo $! > {}; exit 0", pid.display())]);
            assert!(show(&mut command, "f", &Lines::of([])).await.unwrap().success());
            until_gone(&fs::read_to_string(&pid).unwrap()).await;
        }
    }
}
