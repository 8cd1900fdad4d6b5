use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime_api::{Error, FunctionName, Result};

/// Calls of one function that are being accepted at once: most of the places that a queue has, and not all.
const MOST: usize = 768;

/// Calls that are being accepted, by function: slow clients of one do not keep those of others out.
#[derive(Default)]
pub(crate) struct Uploads {
    functions: Mutex<HashMap<FunctionName, usize>>,
}

impl Uploads {
    /// One begins, and ends when what is returned is dropped.
    ///
    /// # Errors
    /// `QueueFull` when there are too many of the function's.
    pub(crate) fn begin(self: &Arc<Self>, function: &FunctionName) -> Result<Upload> {
        let mut functions = self.functions();
        let count = functions.entry(function.clone()).or_default();
        if *count >= MOST {
            let message =
                format!("{MOST} calls of {function} are being accepted already: try again in a second");
            return Err(Error::QueueFull { message, retry_after: Duration::from_secs(1) });
        }
        *count += 1;
        drop(functions);
        Ok(Upload { uploads: Arc::clone(self), function: function.clone() })
    }

    fn functions(&self) -> MutexGuard<'_, HashMap<FunctionName, usize>> {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is being accepted.
pub(crate) struct Upload {
    uploads: Arc<Uploads>,
    function: FunctionName,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut functions = self.uploads.functions();
        if let Some(count) = functions.get_mut(&self.function) {
            *count -= 1;
            if *count == 0 {
                functions.remove(&self.function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_does_not_have_all_places() {
        let uploads = Arc::new(Uploads::default());
        let [slow, other] = ["slow", "other"].map(|name| FunctionName::parse(name).unwrap());
        let mut begun: Vec<_> = (0..MOST).map(|_| uploads.begin(&slow).unwrap()).collect();
        assert_eq!(uploads.begin(&slow).err().unwrap().code(), "queue-full");
        begun.push(uploads.begin(&other).unwrap());
        begun.remove(0);
        begun.push(uploads.begin(&slow).unwrap());
        drop(begun);
        assert!(uploads.functions().is_empty());
    }
}
