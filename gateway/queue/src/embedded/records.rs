//! What a record of each table says. Each begins with the format it is of, so that later ones can be told from it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use runtime_api::{CallId, FunctionName};

use super::codec::{Problem, Reader, Writer};

const FORMAT: u8 = 1;

/// The attempts of a call that are remembered.
const ATTEMPTS: usize = 100;
/// What is remembered of the last error.
const ERROR_BYTES: usize = 1024;

/// What tells one thing from all others of its kind: a body's file, a key of a caller's.
pub(super) type Name = [u8; 16];

/// A call as it was accepted; never changed.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) function: FunctionName,
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) headers: HeaderMap,
    pub(super) call_id: CallId,
    pub(super) callback_url: Option<String>,
    pub(super) accepted_ms: u64,
    pub(super) not_before_ms: Option<u64>,
    pub(super) idempotency: Option<Name>,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Inline(Bytes),
    File { name: Name, length: u64, check: Name },
}

impl Body {
    pub(super) fn len_bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// What an index says of a call besides its key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Slot {
    pub(super) accepted_ms: u64,
    /// What the call counts for: its record and the file of its body.
    pub(super) bytes: u64,
}

/// How far a call is that was tried at least once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    pub(super) slot: Slot,
    /// Attempts since it was accepted or replayed.
    pub(super) attempt: u32,
    /// Whether somebody wants it cancelled.
    pub(super) cancel: bool,
    pub(super) due_ms: Option<u64>,
    pub(super) died_ms: Option<u64>,
    pub(super) history: History,
}

/// The last attempts and the last error.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    pub(super) attempts: Vec<Try>,
    pub(super) last_error: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Try {
    pub(super) started_ms: u64,
    pub(super) duration_us: Option<u64>,
    pub(super) status: Option<u16>,
}

/// A call that succeeded or was cancelled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) succeeded: bool,
    pub(super) function: FunctionName,
    pub(super) call_id: CallId,
    pub(super) accepted_ms: u64,
    pub(super) ended_ms: u64,
    pub(super) idempotency: Option<Name>,
    pub(super) history: History,
}

/// How many calls a function has, and what those take that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) queued: u64,
    pub(super) running: u64,
    pub(super) waiting: u64,
    pub(super) dead: u64,
    pub(super) succeeded: u64,
    pub(super) cancelled: u64,
    pub(super) bytes: u64,
}

/// What the queue as a whole remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Of the transaction that wrote it, to tell whether one happened.
    pub(super) commit: u64,
    pub(super) last_id: u64,
}

impl Call {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(Vec::with_capacity(self.size_bytes()));
        writer.u8(FORMAT);
        writer.bytes(self.function.as_str().as_bytes()).bytes(self.method.as_str().as_bytes());
        writer.bytes(self.path_and_query.as_bytes()).bytes(self.call_id.as_str().as_bytes());
        writer.option(self.callback_url.as_ref(), |writer, url| {
            writer.bytes(url.as_bytes());
        });
        writer.u64(self.accepted_ms).option(self.not_before_ms, |writer, time| {
            writer.u64(time);
        });
        writer.option(self.idempotency, |writer, name| writer.0.extend_from_slice(&name));
        writer.u32(u32::try_from(self.headers.len()).unwrap_or(u32::MAX));
        for (name, value) in &self.headers {
            writer.bytes(name.as_str().as_bytes()).bytes(value.as_bytes());
        }
        match &self.body {
            Body::Inline(bytes) => {
                writer.u8(0).bytes(bytes);
            }
            Body::File { name, length, check } => {
                writer.u8(1).u64(*length).0.extend_from_slice(name);
                writer.0.extend_from_slice(check);
            }
        }
        writer.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Problem> {
        let mut reader = start(value)?;
        let function = function(reader.text()?)?;
        let method = Method::from_bytes(reader.bytes()?).map_err(|_| "its method is none")?;
        let path_and_query = reader.text()?.to_owned();
        let call_id = CallId::new(reader.text()?);
        let callback_url = reader.option(|reader| reader.text().map(str::to_owned))?;
        let accepted_ms = reader.u64()?;
        let not_before_ms = reader.option(Reader::u64)?;
        let idempotency = reader.option(Reader::array)?;
        let mut headers = HeaderMap::new();
        for _ in 0..reader.u32()? {
            let name = HeaderName::from_bytes(reader.bytes()?).map_err(|_| "the name of a header is none")?;
            let value =
                HeaderValue::from_bytes(reader.bytes()?).map_err(|_| "the value of a header is none")?;
            headers.try_append(name, value).map_err(|_| "it has too many headers")?;
        }
        let body = match reader.u8()? {
            0 => Body::Inline(Bytes::copy_from_slice(reader.bytes()?)),
            1 => Body::File { length: reader.u64()?, name: reader.array()?, check: reader.array()? },
            _ => return Err("its body is of an unknown kind"),
        };
        reader.end()?;
        Ok(Self {
            function,
            method,
            path_and_query,
            headers,
            call_id,
            callback_url,
            accepted_ms,
            not_before_ms,
            idempotency,
            body,
        })
    }

    /// About what it takes when it is encoded.
    fn size_bytes(&self) -> usize {
        let header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 8;
        let body = if let Body::Inline(bytes) = &self.body { bytes.len() } else { 0 };
        let texts = self.function.as_str().len() + self.path_and_query.len() + self.call_id.as_str().len();
        let url = self.callback_url.as_ref().map_or(0, String::len);
        128 + texts + url + self.headers.iter().map(header).sum::<usize>() + body
    }

    pub(super) fn file(&self) -> Option<Name> {
        match &self.body {
            Body::Inline(_) => None,
            Body::File { name, .. } => Some(*name),
        }
    }
}

impl Slot {
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (accepted, size) = bytes.split_at_mut(8);
        accepted.copy_from_slice(&self.accepted_ms.to_le_bytes());
        size.copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Problem> {
        let mut reader = Reader(value);
        let slot = Self { accepted_ms: reader.u64()?, bytes: reader.u64()? };
        reader.end().map(|()| slot)
    }
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = begin();
        writer.u64(self.slot.accepted_ms).u64(self.slot.bytes).u32(self.attempt).u8(u8::from(self.cancel));
        writer.option(self.due_ms, |writer, time| {
            writer.u64(time);
        });
        writer.option(self.died_ms, |writer, time| {
            writer.u64(time);
        });
        self.history.encode(&mut writer);
        writer.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Problem> {
        let mut reader = start(value)?;
        let progress = Self {
            slot: Slot { accepted_ms: reader.u64()?, bytes: reader.u64()? },
            attempt: reader.u32()?,
            cancel: reader.u8()? == 1,
            due_ms: reader.option(Reader::u64)?,
            died_ms: reader.option(Reader::u64)?,
            history: History::decode(&mut reader)?,
        };
        reader.end().map(|()| progress)
    }

    pub(super) fn begin_attempt(&mut self, now_ms: u64) {
        self.attempt = self.attempt.saturating_add(1);
        let attempts = &mut self.history.attempts;
        attempts.drain(..(attempts.len() + 1).saturating_sub(ATTEMPTS));
        attempts.push(Try { started_ms: now_ms, duration_us: None, status: None });
    }

    pub(super) fn end_attempt(&mut self, status: Option<u16>, duration_us: u64, error: &str) {
        if let Some(last) = self.history.attempts.last_mut() {
            (last.status, last.duration_us) = (status, Some(duration_us));
        }
        self.remember(error);
    }

    /// As if the attempt had not been made.
    pub(super) fn take_attempt_back(&mut self, error: &str) {
        self.attempt = self.attempt.saturating_sub(1);
        self.history.attempts.pop();
        self.remember(error);
    }

    fn remember(&mut self, error: &str) {
        self.history.last_error =
            error.get(..error.floor_char_boundary(ERROR_BYTES)).unwrap_or_default().into();
    }
}

impl History {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.last_error.as_bytes());
        writer.u32(u32::try_from(self.attempts.len()).unwrap_or(u32::MAX));
        for attempt in &self.attempts {
            writer.u64(attempt.started_ms);
            writer.option(attempt.duration_us, |writer, time| {
                writer.u64(time);
            });
            writer.option(attempt.status, |writer, status| {
                writer.u32(status.into());
            });
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Problem> {
        let last_error = reader.text()?.to_owned();
        let mut attempts = Vec::new();
        for _ in 0..reader.u32()? {
            let started_ms = reader.u64()?;
            let duration_us = reader.option(Reader::u64)?;
            let status = reader.option(Reader::u32)?.map(u16::try_from).transpose();
            attempts.push(Try { started_ms, duration_us, status: status.map_err(|_| "a status is none")? });
        }
        Ok(Self { attempts, last_error })
    }
}

impl Ended {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = begin();
        writer.u8(u8::from(self.succeeded)).bytes(self.function.as_str().as_bytes());
        writer.bytes(self.call_id.as_str().as_bytes()).u64(self.accepted_ms).u64(self.ended_ms);
        writer.option(self.idempotency, |writer, name| writer.0.extend_from_slice(&name));
        self.history.encode(&mut writer);
        writer.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Problem> {
        let mut reader = start(value)?;
        let ended = Self {
            succeeded: reader.u8()? == 1,
            function: function(reader.text()?)?,
            call_id: CallId::new(reader.text()?),
            accepted_ms: reader.u64()?,
            ended_ms: reader.u64()?,
            idempotency: reader.option(Reader::array)?,
            history: History::decode(&mut reader)?,
        };
        reader.end().map(|()| ended)
    }
}

impl Counts {
    /// Calls whose records take room.
    pub(super) fn live(&self) -> u64 {
        self.queued + self.running + self.waiting + self.dead
    }

    pub(super) fn encode(&self, function: &FunctionName) -> Vec<u8> {
        let mut writer = begin();
        writer.bytes(function.as_str().as_bytes());
        for count in
            [self.queued, self.running, self.waiting, self.dead, self.succeeded, self.cancelled, self.bytes]
        {
            writer.u64(count);
        }
        writer.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<(FunctionName, Self), Problem> {
        let mut reader = start(value)?;
        let function = function(reader.text()?)?;
        let counts = Self {
            queued: reader.u64()?,
            running: reader.u64()?,
            waiting: reader.u64()?,
            dead: reader.u64()?,
            succeeded: reader.u64()?,
            cancelled: reader.u64()?,
            bytes: reader.u64()?,
        };
        reader.end().map(|()| (function, counts))
    }
}

impl Totals {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut writer = begin();
        writer.u64(self.commit).u64(self.last_id);
        writer.0
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Problem> {
        let mut reader = start(value)?;
        let totals = Self { commit: reader.u64()?, last_id: reader.u64()? };
        reader.end().map(|()| totals)
    }
}

fn begin() -> Writer {
    Writer(vec![FORMAT])
}

fn start(value: &[u8]) -> Result<Reader<'_>, Problem> {
    let mut reader = Reader(value);
    match reader.u8()? {
        FORMAT => Ok(reader),
        _ => Err("it is of a format that a later release writes"),
    }
}

fn function(text: &str) -> Result<FunctionName, Problem> {
    FunctionName::parse(text).map_err(|_| "the name of its function is none")
}
