use std::sync::{Arc, atomic::Ordering};

use super::{
    Settings, bodies,
    committer::{Committer, read_totals},
    engine::{Effects, Engine, Work},
    functions::Functions,
    records::Name,
    reserve::Reserve,
    shared::Shared,
    tables::{CALLS, DAMAGED, FILES, Tables},
};
use crate::{Error, Result};

/// The file with everything but large bodies.
pub(super) const FILE: &str = "queue.redb";

/// What is to be done between the opening of the file and the first request.
pub(super) fn prepare(shared: &Arc<Shared>, settings: Settings) -> Result<Committer> {
    let disk = Arc::clone(&shared.disk);
    let reserve = Reserve::take(disk, settings.reserve_bytes, shared.now_ms())
        .map_err(|error| Error::Stopped(format!("the room on its disk cannot be told: {error}")))?;
    let sealer = Arc::clone(&shared.sealer);
    let (functions, totals) = shared
        .database
        .read(|snapshot| Ok((Functions::load(snapshot, &sealer)?, read_totals(snapshot, &sealer)?)))?;
    shared.next_id.store(totals.last_id + 1, Ordering::Relaxed);
    let mut engine = Engine { sealer, limits: settings.limits, functions, totals, held: Default::default() };
    give_back_what_ran(shared, &mut engine)?;
    sweep(shared)?;
    Ok(Committer::new(Arc::clone(shared), engine, reserve, settings.idle))
}

/// What ran when the last process ended is due again. Nothing else is written where nothing ran.
fn give_back_what_ran(shared: &Shared, engine: &mut Engine) -> Result<()> {
    let ran = |engine: &Engine| engine.functions.running() > 0;
    while ran(engine) {
        let mut effects = Effects::default();
        engine.totals.commit += 1;
        let now_ms = shared.now_ms();
        let any = shared.database.write(|transaction| {
            let tables = Tables::open(transaction)?;
            let mut work = Work { engine: &mut *engine, tables, now_ms, effects: &mut effects };
            let any = work.give_back_lost()?;
            if !any {
                work.engine.functions.none_running();
            }
            work.finish()?;
            Ok(any)
        })?;
        for file in effects.files {
            bodies::remove(&*shared.disk, file);
        }
        if !any {
            break;
        }
    }
    Ok(())
}

fn sweep(shared: &Shared) -> Result<()> {
    let known = |name: Name| {
        let known = shared.database.read(|snapshot| {
            let (files, calls, damaged) =
                (snapshot.open(FILES)?, snapshot.open(CALLS)?, snapshot.open(DAMAGED)?);
            let Some(id) = files.get(&name)? else { return Ok(false) };
            Ok(calls.get(id.bytes())?.is_some() || damaged.get(id.bytes())?.is_some())
        });
        known.map_err(|error| shared.judge(error))
    };
    bodies::sweep(&*shared.disk, known)
}
