use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::HeaderMap;
use runtime_api::{Error, FunctionName, Result};

use crate::{
    BasicAuth, Credentials, auth::are_presented, cross_site::refuse_other_sites, throttle::Throttle,
};

/// The most functions that are known to ask for credentials.
const MAX_ASKING: usize = 10_000;

/// The only way to what is below `/system` and `/ui`, and who slows down those that guess credentials there or at
/// functions that ask for some. The two know nothing of each other.
pub struct Gate {
    auth: Option<BasicAuth>,
    system: Throttle,
    calls: Throttle,
    asking: Asking,
}

impl Gate {
    /// Lets in who presents the credentials; everybody, whatever they present, where there are none.
    pub fn new(credentials: Option<&Credentials>) -> Self {
        Self {
            auth: credentials.map(BasicAuth::new),
            system: Throttle::default(),
            calls: Throttle::default(),
            asking: Asking::default(),
        }
    }

    /// Lets a request in, or says why not. One that guesses waits for its turn.
    ///
    /// # Errors
    /// `Invalid` for a page of another site, `Unauthenticated`, `TooManyAttempts`.
    pub async fn admit(&self, peer: IpAddr, headers: &HeaderMap) -> Result<()> {
        refuse_other_sites(headers, self.auth.is_some())?;
        match &self.auth {
            Some(auth) if are_presented(headers) => {
                self.system.guard(peer, async { auth.check(headers) }).await
            }
            Some(auth) => auth.check(headers),
            None => Ok(()),
        }
    }

    /// Makes a call, in its turn where the function is known to look at what is presented. Other calls pay nothing.
    ///
    /// # Errors
    /// What the call answers, and `TooManyAttempts`.
    pub async fn call<T>(
        &self,
        peer: IpAddr,
        function: &FunctionName,
        presented: bool,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = if presented && self.asking.knows(function) {
            self.calls.guard(peer, call).await
        } else {
            call.await
        };
        match &answer {
            Err(Error::Unauthenticated { .. }) => self.asking.add(function),
            Err(Error::NotFound(_)) => self.asking.forget(function),
            _ => {}
        }
        answer
    }
}

/// The functions that are known to ask for credentials.
#[derive(Default)]
struct Asking {
    any: AtomicBool,
    functions: RwLock<HashSet<FunctionName>>,
}

impl Asking {
    fn knows(&self, function: &FunctionName) -> bool {
        self.any.load(Ordering::Relaxed)
            && self.functions.read().unwrap_or_else(PoisonError::into_inner).contains(function)
    }

    fn add(&self, function: &FunctionName) {
        if self.knows(function) {
            return;
        }
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.len() < MAX_ASKING {
            functions.insert(function.clone());
            self.any.store(true, Ordering::Relaxed);
        }
    }

    fn forget(&self, function: &FunctionName) {
        if self.knows(function) {
            self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(function);
        }
    }
}
