use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use http::HeaderMap;
use prometheus::Registry;
use runtime_api::{Error, FunctionName, Result};

use crate::{
    BasicAuth, Credentials,
    auth::are_presented,
    cross_site::refuse_other_sites,
    guesses::{Door, Guesses},
    throttle::Throttle,
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
    guesses: Guesses,
}

impl Gate {
    /// Lets in who presents the credentials; everybody, whatever they present, where there are none.
    /// What it counts is in the registry.
    ///
    /// # Errors
    /// `Internal` where the registry has a gate's metrics already.
    pub fn new(credentials: Option<&Credentials>, registry: &Registry) -> Result<Self> {
        Ok(Self {
            auth: credentials.map(BasicAuth::new),
            system: Throttle::default(),
            calls: Throttle::default(),
            asking: Asking::default(),
            guesses: Guesses::new(registry)?,
        })
    }

    /// Lets a request for a path in, or says why not. One that guesses waits for its turn.
    ///
    /// # Errors
    /// `Invalid` for a page of another site, `Unauthenticated`, `TooManyAttempts`.
    pub async fn admit(&self, peer: IpAddr, path: &str, headers: &HeaderMap) -> Result<()> {
        refuse_other_sites(headers, self.auth.is_some())?;
        let Some(auth) = &self.auth else { return Ok(()) };
        if !are_presented(headers) {
            return auth.check(headers);
        }
        let looked = self.system.guard(peer, async { auth.check(headers) }).await;
        looked.inspect_err(|error| self.guesses.note(Door::System, error, peer, path))
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
        if presented && let Err(error) = &answer {
            self.guesses.note(Door::Function, error, peer, function.as_str());
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

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::Ipv4Addr,
        sync::{Arc, Mutex},
    };

    use http::{HeaderValue, header::AUTHORIZATION};
    use prometheus::TextEncoder;
    use tracing::subscriber::{set_default, set_global_default};

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn presenting(value: &'static str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_credentials_are_counted_and_told_without_what_they_were() {
        // Else a call site that is first reached in another test may be taken for one that nobody listens to.
        let _ = set_global_default(tracing_subscriber::registry());
        let log = Log::default();
        let lines = log.0.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        let _guard = set_default(subscriber);
        let (registry, function) = (Registry::new(), FunctionName::parse("f").unwrap());
        let credentials = Credentials { user: "admin".into(), password: "secret".into() };
        let gate = Gate::new(Some(&credentials), &registry).unwrap();
        // What presents nothing is no guess, and what is right is none either.
        gate.admit(PEER, "/system/info", &HeaderMap::new()).await.unwrap_err();
        gate.admit(PEER, "/system/info", &presenting("Basic YWRtaW46c2VjcmV0")).await.unwrap();
        let asking = || Error::Unauthenticated { challenge: "Bearer".into() };
        gate.call(PEER, &function, false, async { Err::<(), _>(asking()) }).await.unwrap_err();
        assert!(lines.lock().unwrap().is_empty());

        let wrong = presenting("Basic Y2FuYXJ5OmNhbmFyeQ==");
        for _ in 0..3 {
            gate.admit(PEER, "/system/info", &wrong).await.unwrap_err();
        }
        let attempts = (0..100).map(|_| gate.admit(PEER, "/system/info", &wrong));
        futures_util::future::join_all(attempts).await;
        gate.call(PEER, &function, true, async { Err::<(), _>(asking()) }).await.unwrap_err();
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        // One at once, and one in each of the five seconds that those waited who were not refused.
        assert_eq!(text.lines().count(), 6, "{text}");
        let first = text.lines().next().unwrap();
        for part in ["WARN", "peer=192.0.2.1", "path=\"/system/info\"", "outcome=\"refused\"", "attempts=1"] {
            assert!(first.contains(part), "{part} is not in {first}");
        }
        assert!(!text.contains("canary") && !text.contains("Y2FuYXJ5"), "{text}");

        let counted = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "fawn_auth_failures_total{door=\"function\",outcome=\"refused\"} 1",
            "fawn_auth_failures_total{door=\"function\",outcome=\"throttled\"} 0",
            "fawn_auth_failures_total{door=\"system\",outcome=\"refused\"} 16",
            "fawn_auth_failures_total{door=\"system\",outcome=\"throttled\"} 87",
        ] {
            assert!(counted.contains(line), "{line} is not in {counted}");
        }
    }
}
