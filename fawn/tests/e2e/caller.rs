//! Clients that make asynchronous calls under load, and know what they were told of each.

use std::collections::BTreeMap;

use reqwest::{Client, Method};
use tokio::{select, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    edge::{self, Edge, Reply},
    later::{accepted, passing},
    ledger::{Ledger, Seen, answer, body},
    process::PATIENCE,
};

/// The functions of those who go on, and of those who insist.
pub(crate) const FUNCTIONS: [&str; 2] = ["going-on", "insisting"];

/// Clients that call at the same time.
const CLIENTS: usize = 8;
/// Calls that were accepted and are not done, beyond which no more are made.
const BACKLOG: usize = 500;

/// What a client was told of one of its calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) accepted: bool,
    /// How often it is told to come again.
    failures: usize,
}

/// Calls again and again. One kind of client goes on where it gets no answer, the other asks for the same call again.
pub(crate) struct Caller {
    name: String,
    http: Client,
    ledger: Ledger,
    pub(crate) insists: bool,
    made: usize,
    accepted: usize,
    pub(crate) calls: BTreeMap<String, Call>,
    /// What it has to ask for again.
    unanswered: Option<usize>,
}

impl Caller {
    fn new(number: usize, ledger: &Ledger) -> Self {
        Self {
            name: format!("client-{number}"),
            http: edge::client().timeout(PATIENCE).build().unwrap(),
            ledger: ledger.clone(),
            insists: number.is_multiple_of(2),
            made: 0,
            accepted: 0,
            calls: BTreeMap::new(),
            unanswered: None,
        }
    }

    /// Which function it calls.
    fn function(&self) -> &'static str {
        FUNCTIONS[usize::from(self.insists)]
    }

    async fn call_until(mut self, gateway: String, over: CancellationToken) -> Self {
        let mut done = self.ledger.done();
        while !over.is_cancelled() {
            // As many as all have, about.
            let accepted = CLIENTS * self.accepted;
            select! {
                enough = done.wait_for(|done| accepted < done + BACKLOG) => drop(enough.unwrap()),
                () = over.cancelled() => break,
            }
            let call = self.unanswered.take().unwrap_or_else(|| {
                self.made += 1;
                self.made
            });
            if !self.post(&gateway, call).await {
                over.cancelled().await;
            }
        }
        self
    }

    /// Gets the answer that it was left without.
    pub(crate) async fn insist(&mut self, edge: &Edge) {
        if let Some(call) = self.unanswered.take() {
            self.post(&edge.gateway, call).await;
        }
    }

    /// Answers whether there is a server.
    async fn post(&mut self, gateway: &str, call: usize) -> bool {
        let id = format!("{}-{call}", self.name);
        let failures = if call % 10 == 3 { 1 + call % 2 } else { 0 };
        let bytes = if call % 20 == 7 { (64 << 10) + 1 + call % 200_000 } else { call % 3000 };
        let path = passing(self.function(), &self.ledger.effect(&id, failures));
        let mut request = self
            .http
            .request(Method::POST, format!("{gateway}{path}"))
            .header("x-callback-url", self.ledger.callback(&id))
            .body(body(&id, bytes));
        if call % 10 == 6 {
            request = request.header("x-delay-seconds", "1");
        }
        if self.insists {
            request = request.header("idempotency-key", &id);
        }
        let answered = Reply::try_to(request).await;
        let accepted = match &answered {
            Ok(answer) => !accepted(answer).is_empty(),
            Err(_) => false,
        };
        self.accepted += usize::from(accepted);
        self.unanswered = (self.insists && !accepted).then_some(call);
        if answered.is_err_and(|error| error.is_connect()) {
            return false;
        }
        // Where there was no answer, nobody knows whether it was kept.
        self.calls.entry(id).or_insert(Call { accepted, failures }).accepted |= accepted;
        true
    }
}

pub(crate) fn callers(ledger: &Ledger) -> Vec<Caller> {
    (0..CLIENTS).map(|number| Caller::new(number, ledger)).collect()
}

/// Lets all of them call at the same time, until it is over.
pub(crate) fn call_until(callers: Vec<Caller>, edge: &Edge, over: &CancellationToken) -> JoinSet<Caller> {
    callers.into_iter().map(|caller| caller.call_until(edge.gateway.clone(), over.clone())).collect()
}

/// What the ledger must have of a call.
pub(crate) fn check(id: &str, call: Call, seen: &Seen) {
    if call.accepted {
        assert!(seen.successes() > 0, "{id} was accepted and did not run: {seen:?}");
    }
    if seen.successes() > 0 {
        assert!(!seen.callbacks.is_empty(), "nobody was told of the end of {id}: {seen:?}");
    }
    for callback in &seen.callbacks {
        assert_eq!(callback.body, answer(id));
        assert_eq!(callback.headers["x-function-status"], "200", "{id}: {seen:?}");
    }
    // In one life, a call runs again only where it failed.
    let mut lives = BTreeMap::<u32, (usize, usize)>::new();
    for (life, status) in &seen.effects {
        let (succeeded, failed) = lives.entry(*life).or_default();
        *(if status.is_success() { succeeded } else { failed }) += 1;
    }
    for (life, (succeeded, failed)) in lives {
        assert!(succeeded <= 1, "{id} ran more than once in life {life}: {seen:?}");
        assert!(failed <= call.failures, "{id} failed too often in life {life}: {seen:?}");
    }
}
