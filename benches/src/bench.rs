//! The whole run.

use std::{
    fs,
    io::{Write, stderr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    api::Api,
    cold::{self, Costs},
    connection::request,
    guests::{Guests, HELLO, HELLO_JS},
    instances::{self, Instances},
    load::Target,
    noisy::{self, Noise},
    report::Table,
    server::Server,
    warm::{By, Subject, Subjects, WASMTIME, Work},
};

/// How much is measured.
pub(crate) struct Extent {
    rounds: usize,
    time: Duration,
    /// Distinct functions of a kind.
    functions: u32,
    restarts: usize,
    noisy_rounds: usize,
    noisy_time: Duration,
    instances: u32,
}

impl Extent {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        time: Duration::from_millis(800),
        functions: 50,
        restarts: 5,
        noisy_rounds: 3,
        noisy_time: Duration::from_millis(2500),
        instances: 5000,
    };
    /// Shows that everything works; the numbers mean little.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        time: Duration::from_millis(200),
        functions: 3,
        restarts: 2,
        noisy_rounds: 1,
        noisy_time: Duration::from_millis(500),
        instances: 100,
    };
}

/// What is measured, and with what.
pub(crate) struct Bench {
    pub(crate) fawn: PathBuf,
    pub(crate) wasmtime: Option<PathBuf>,
    pub(crate) workerd: Option<PathBuf>,
    pub(crate) spin: Option<PathBuf>,
    pub(crate) guests: Guests,
    /// Why there is no JavaScript among them.
    pub(crate) no_js: String,
    pub(crate) extent: Extent,
    pub(crate) folder: TempDir,
}

/// All that was found.
pub(crate) struct Measured {
    pub(crate) subjects: Subjects,
    pub(crate) noise: Vec<Noise>,
    pub(crate) costs: Costs,
    pub(crate) instances: Instances,
    pub(crate) no_js: String,
    pub(crate) tables: Vec<Table>,
}

impl Bench {
    pub(crate) fn run(self) -> Result<Measured> {
        let Extent { rounds, time, noisy_rounds, noisy_time, .. } = self.extent;
        say("starting servers, compiling")?;
        let (mut servers, mut subjects) = (Vec::new(), Vec::new());
        self.start_bare(&mut servers, &mut subjects)?;
        self.start_wasmtime(&mut servers, &mut subjects)?;
        self.start_workerd(&mut servers, &mut subjects)?;
        self.start_spin(&mut servers, &mut subjects)?;
        self.start_apart(&mut servers, &mut subjects)?;
        let fawn = self.start_fawn(&mut subjects)?;
        subjects.sort_by_key(|subject| subject.work);
        let mut subjects = Subjects(subjects);
        say("warm calls")?;
        subjects.measure(rounds, time)?;
        servers.into_iter().try_for_each(Server::stop)?;

        say("a neighbour that runs for ever")?;
        let mut called = vec![("component beside an endless loop on each core: p99", hello(&fawn))];
        if self.guests.js.is_some() {
            called.push(("JavaScript beside an endless loop on each core: p99", javascript(&fawn)));
        }
        let noise = noisy::measure(&called, &noisy::endless(fawn.address), noisy_rounds, noisy_time)?;
        fawn.stop()?;

        say("first calls")?;
        let plan = cold::Plan {
            start: &|| self.fawn(),
            component: &self.guests.hello,
            command: &self.guests.hello_stdio,
            count: self.extent.functions,
            restarts: self.extent.restarts,
            js: self.guests.js.is_some(),
        };
        let costs = cold::measure(&plan)?;
        say("instances")?;
        let instances = instances::measure(self.extent.restarts, self.extent.instances)?;
        let tables = vec![
            subjects.table()?,
            noisy::table(&noise),
            cold::table(&costs, &plan),
            instances::table(&instances),
        ];
        Ok(Measured { subjects, noise, costs, instances, no_js: self.no_js, tables })
    }

    fn start_bare(&self, servers: &mut Vec<Server>, subjects: &mut Vec<Subject>) -> Result<()> {
        for (mode, name) in [("multi-thread", "hyper, multi-thread"), ("per-core", "hyper, per core")] {
            let server = Server::reference(mode)?;
            for (work, target) in [(Work::Hello, get(&server, "/", HELLO)), (Work::Echo, post(&server, "/"))]
            {
                subjects.push(Subject::new(work, By::Hyper(name), target, server.pid));
            }
            servers.push(server);
        }
        Ok(())
    }

    fn start_wasmtime(&self, servers: &mut Vec<Server>, subjects: &mut Vec<Subject>) -> Result<()> {
        let Some(wasmtime) = &self.wasmtime else { return Ok(()) };
        let works = [
            (Work::Hello, Some(&self.guests.hello), &[][..]),
            (Work::Echo, Some(&self.guests.echo), &[]),
            (Work::JavaScript, self.guests.js.as_ref(), &["-Scli"]),
        ];
        for (work, guest, needs) in works {
            let Some(guest) = guest else { continue };
            let path = self.write("peer.wasm", guest)?;
            let server = Server::wasmtime(wasmtime, &path, needs)?;
            let target = match work {
                Work::Hello => get(&server, "/", HELLO),
                Work::JavaScript => get(&server, "/", HELLO_JS),
                Work::Echo => post(&server, "/"),
            };
            subjects.push(Subject::new(work, WASMTIME, target, server.pid));
            servers.push(server);
        }
        Ok(())
    }

    fn start_workerd(&self, servers: &mut Vec<Server>, subjects: &mut Vec<Subject>) -> Result<()> {
        let Some(workerd) = &self.workerd else { return Ok(()) };
        let server = Server::workerd(workerd, self.folder.path())?;
        let target = get(&server, "/", HELLO_JS);
        subjects.push(Subject::new(Work::JavaScript, By::Peer("workerd, reused"), target, server.pid));
        servers.push(server);
        Ok(())
    }

    fn start_spin(&self, servers: &mut Vec<Server>, subjects: &mut Vec<Subject>) -> Result<()> {
        let Some(spin) = &self.spin else { return Ok(()) };
        self.write("peer.wasm", &self.guests.hello)?;
        let server = Server::spin(spin, self.folder.path())?;
        let target = get(&server, "/", HELLO);
        subjects.push(Subject::new(Work::Hello, By::Peer("spin up"), target, server.pid));
        servers.push(server);
        Ok(())
    }

    /// The gateway ends first.
    fn start_apart(&self, servers: &mut Vec<Server>, subjects: &mut Vec<Subject>) -> Result<()> {
        let folder = |name| self.folder.path().join(name);
        let node = Server::fawn_node(&self.fawn, &folder("node"))?;
        let gateway = Server::fawn_gateway(&self.fawn, &node, &folder("gateway"))?;
        Api::connect(&gateway)?.deploy("hello", &self.guests.hello, json!({}))?;
        subjects.push(Subject::new(Work::Hello, By::FawnApart, hello(&gateway), gateway.pid));
        servers.extend([gateway, node]);
        Ok(())
    }

    fn start_fawn(&self, subjects: &mut Vec<Subject>) -> Result<Server> {
        let server = self.fawn()?;
        let mut api = Api::connect(&server)?;
        api.deploy("hello-stdio", &self.guests.hello_stdio, json!({}))?;
        api.deploy("echo", &self.guests.echo, json!({}))?;
        api.deploy("echo-stdio", &self.guests.echo_stdio, json!({}))?;
        api.deploy("endless", &self.guests.endless, json!({ "exec_timeout": "10m" }))?;
        if let Some(js) = &self.guests.js {
            api.deploy("js", js, json!({}))?;
            subjects.push(Subject::new(Work::JavaScript, By::FawnComponent, javascript(&server), server.pid));
        }
        let stdio = get(&server, "/function/hello-stdio", HELLO);
        subjects.push(Subject::new(Work::Hello, By::FawnComponent, hello(&server), server.pid));
        subjects.push(Subject::new(Work::Hello, By::FawnStdio, stdio, server.pid));
        for (by, path) in [(By::FawnComponent, "/function/echo"), (By::FawnStdio, "/function/echo-stdio")] {
            subjects.push(Subject::new(Work::Echo, by, post(&server, path), server.pid));
        }
        Ok(server)
    }

    /// A node with the function `hello`, always on the same data.
    fn fawn(&self) -> Result<Server> {
        let function = self.write("hello.wasm", &self.guests.hello)?;
        Server::fawn(&self.fawn, &function, &self.folder.path().join("data"))
    }

    fn write(&self, name: &str, module: &[u8]) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, module).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

pub(crate) fn say(step: &str) -> Result<()> {
    Ok(writeln!(stderr(), "benches: {step}")?)
}

fn hello(fawn: &Server) -> Target {
    get(fawn, "/function/hello", HELLO)
}

fn javascript(fawn: &Server) -> Target {
    get(fawn, "/function/js", HELLO_JS)
}

fn get(server: &Server, path: &str, answer: &str) -> Target {
    let request = request("GET", path, b"");
    Target { address: server.address, request, status: 200, answer_length: answer.len() }
}

fn post(server: &Server, path: &str) -> Target {
    let body = [b'a'; 1024];
    let request = request("POST", path, &body);
    Target { address: server.address, request, status: 200, answer_length: body.len() }
}
