//! Which of a name's functions a call belongs to, for its log: the one that there is, or one that was removed.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use runtime_api::FunctionName;
use runtime_wasm::LogEnd;

/// The ends of all functions' logs.
#[derive(Default)]
pub(crate) struct Ends(Mutex<HashMap<FunctionName, Named>>);

/// Those of one name.
#[derive(Default)]
struct Named {
    /// Of the function that there is, or is about to be.
    current: LogEnd,
    /// Of the one that was removed, and whose log is still there.
    retired: Option<LogEnd>,
}

impl Named {
    fn is_used(&self) -> bool {
        self.current.is_shared() || self.retired.as_ref().is_some_and(LogEnd::is_shared)
    }
}

impl Ends {
    /// The end of a function's log, the same for all its revisions.
    pub(crate) fn of(&self, function: &FunctionName) -> LogEnd {
        self.lock().entry(function.clone()).or_default().current.clone()
    }

    /// From now on, the name's next function is another.
    pub(crate) fn retire(&self, function: &FunctionName) {
        if let Some(named) = self.lock().get_mut(function) {
            // Where one is retired already, none has been there since.
            named.retired.get_or_insert_with(|| std::mem::take(&mut named.current));
        }
    }

    /// Ends the log of the function that was removed.
    pub(crate) fn set(&self, function: &FunctionName) {
        let retired = self.lock().get_mut(function).and_then(|named| named.retired.take());
        retired.iter().for_each(LogEnd::set);
    }

    /// Ends the logs of all that were removed in a namespace.
    pub(crate) fn set_all(&self, namespace: &str) {
        let mut ends = self.lock();
        for (_, named) in ends.iter_mut().filter(|(function, _)| function.namespace() == namespace) {
            named.retired.take().iter().for_each(LogEnd::set);
        }
    }

    /// Forgets names without a function, and without a call of one.
    pub(crate) fn forget(&self, exists: impl Fn(&FunctionName) -> bool) {
        self.lock().retain(|function, named| named.is_used() || exists(function));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FunctionName, Named>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_s_next_function_has_another_log_and_the_removed_one_s_ends_with_it() {
        let (ends, name) = (Ends::default(), FunctionName::parse("f").unwrap());
        let (old, revision) = (ends.of(&name), ends.of(&name));
        ends.set(&name);
        ends.retire(&name);
        let new = ends.of(&name);
        assert!(!old.is_set());
        // A deployment that was ended before it came to serve.
        ends.retire(&name);
        ends.set(&name);
        assert!(old.is_set() && revision.is_set() && !new.is_set());
        ends.retire(&name);
        ends.set_all(name.namespace());
        assert!(new.is_set());
        ends.forget(|_| false);
        assert!(ends.lock().is_empty());
    }
}
