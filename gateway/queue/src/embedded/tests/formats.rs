//! What earlier releases wrote is read: records byte for byte as they were made then.

use http::{HeaderMap, HeaderValue, Method};

use super::{super::records::*, *};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_call() -> Call {
    let mut headers = HeaderMap::new();
    headers.append("x-a", HeaderValue::from_static("1"));
    Call {
        function: function("env.dev"),
        method: Method::PUT,
        path_and_query: "/p?q".into(),
        headers,
        call_id: CallId::new("id"),
        callback_url: Some("http://c".into()),
        accepted_ms: 1,
        not_before_ms: Some(2),
        idempotency: Some([3; 16]),
        body: Body::Inline("body".into()),
    }
}

fn history() -> History {
    let tried = |duration_us, status| Try { started_ms: 5, duration_us, status };
    History { attempts: vec![tried(Some(6), Some(500)), tried(None, None)], last_error: "e".into() }
}

/// Every record of format 1.
#[test]
fn records_are_read_as_they_were_written() {
    let call = a_call();
    assert_eq!(hex(&call.encode()), CALL);
    assert_eq!(Call::decode(&call.encode()).unwrap(), call);

    let body = Body::File { name: [4; 16], length: 70_000, check: [5; 16] };
    let large = Call { callback_url: None, not_before_ms: None, idempotency: None, body, ..a_call() };
    assert_eq!(hex(&large.encode()), LARGE_CALL);
    assert_eq!(Call::decode(&large.encode()).unwrap(), large);

    let slot = Slot { accepted_ms: 1, bytes: 2 };
    assert_eq!(hex(&slot.encode()), "01000000000000000200000000000000");
    assert_eq!(Slot::decode(&slot.encode()).unwrap(), slot);

    let progress =
        Progress { slot, attempt: 3, cancel: true, due_ms: Some(4), died_ms: None, history: history() };
    assert_eq!(hex(&progress.encode()), PROGRESS);
    assert_eq!(Progress::decode(&progress.encode()).unwrap(), progress);

    let ended = Ended {
        succeeded: true,
        function: function("env.dev"),
        call_id: CallId::new("id"),
        accepted_ms: 1,
        ended_ms: 2,
        idempotency: None,
        history: history(),
    };
    assert_eq!(hex(&ended.encode()), ENDED);
    assert_eq!(Ended::decode(&ended.encode()).unwrap(), ended);

    let counts = Counts { queued: 1, running: 2, waiting: 3, dead: 4, succeeded: 5, cancelled: 6, bytes: 7 };
    assert_eq!(hex(&counts.encode(&function("env.dev"))), COUNTS);
    assert_eq!(Counts::decode(&counts.encode(&function("env.dev"))).unwrap(), (function("env.dev"), counts));

    let totals = Totals { commit: 1, last_id: 2 };
    assert_eq!(hex(&totals.encode()), "0101000000000000000200000000000000");
    assert_eq!(Totals::decode(&totals.encode()).unwrap(), totals);
}

#[test]
fn only_the_last_attempts_are_remembered_and_all_are_counted() {
    let mut progress = Progress::default();
    for attempt in 0..150 {
        progress.begin_attempt(attempt);
        progress.end_attempt(None, 1, &"ä".repeat(600));
    }
    assert_eq!((progress.attempt, progress.history.attempts.len()), (150, 100));
    assert_eq!(progress.history.attempts[0].started_ms, 50);
    assert_eq!(progress.history.last_error.len(), 1024);
}

#[test]
fn records_that_are_cut_or_of_a_later_format_are_refused() {
    let record = a_call().encode();
    for end in 0..record.len() {
        assert!(Call::decode(&record[..end]).is_err(), "cut at {end}");
    }
    let mut later = record;
    later[0] = 2;
    assert!(Call::decode(&later).unwrap_err().contains("later release"));
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A file as the first release made it, table by table.
fn file_of_format_1(disk: &SimulatedDisk, totals: &str) {
    let sealer = Sealer::of([7; 32]);
    let id = bytes("0000000000000005");
    let database = Database::open(Arc::new(disk.clone()), "queue.redb", 8 << 20).unwrap();
    let rows = |transaction: &runtime_store::Transaction| {
        let put = |table: &'static str, key: &[u8], record: &[u8]| {
            transaction.open(table)?.insert(key, record).map(|_| ())
        };
        let function = bytes("00000009");
        let pair = [function.clone(), id.clone()].concat();
        put("calls", &id, &sealer.seal("calls", &id, &bytes(CALL)))?;
        put("ready", &pair, &bytes("01000000000000000200000000000000"))?;
        put("retries", &pair, &sealer.seal("retries", &pair, &bytes(PROGRESS)))?;
        put("functions", &function, &sealer.seal("functions", &function, &bytes(ONE_QUEUED)))?;
        put("numbers", b"env.dev", &function)?;
        put("totals", b"state", &sealer.seal("totals", b"state", &bytes(totals)))
    };
    database.write(rows).unwrap();
    database.close().unwrap();
}

#[tokio::test]
async fn a_file_of_format_1_opens() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    file_of_format_1(&disk, "0101000000000000004100000000000000");
    let queue = open_on(&disk, &clock, SMALL).unwrap();
    let mut delivery = take_one(&queue).await;
    assert_eq!((delivery.id, delivery.call_id.as_str(), delivery.attempt), (EntryId(5), "id", 4));
    assert_eq!(body(&mut delivery).await, b"body");
    assert_eq!(queue.push(call("a", "next", "")).await.unwrap().id, EntryId(0x42));
}

#[tokio::test]
async fn a_file_of_a_later_format_is_refused_and_left_as_it_is() {
    let (disk, clock) = (SimulatedDisk::default(), TestClock::new());
    file_of_format_1(&disk, "0201000000000000004100000000000000");
    let refused = open_on(&disk, &clock, SMALL).err().unwrap();
    let text = std::error::Error::source(&refused).unwrap().to_string();
    assert!(text.contains("later release"), "{text}");
}

const CALL: &str = "0107000000656e762e64657603000000505554040000002f703f710200000069640108000000687474703a2f2f630100\
    00000000000001020000000000000001030303030303030303030303030303030100000003000000782d610100000031\
    0004000000626f6479";
const LARGE_CALL: &str = "0107000000656e762e64657603000000505554040000002f703f71020000006964000100000000000000000001000000\
    03000000782d610100000031017011010000000000040404040404040404040404040404040505050505050505050505\
    0505050505";
const PROGRESS: &str = "010100000000000000020000000000000003000000010104000000000000000001000000650200000005000000000000\
    0001060000000000000001f401000005000000000000000000";
const ENDED: &str = "010107000000656e762e6465760200000069640100000000000000020000000000000000010000006502000000050000\
    000000000001060000000000000001f401000005000000000000000000";
const COUNTS: &str = "0107000000656e762e646576010000000000000002000000000000000300000000000000040000000000000005000000\
    0000000006000000000000000700000000000000";
const ONE_QUEUED: &str = "0107000000656e762e6465760100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000200000000000000";
