use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime_api::{Error, Result};
use tokio::time::{Instant, sleep};

/// What one wrong attempt costs.
const EACH: Duration = Duration::from_secs(1);
/// What an address may owe before it waits: a person who mistypes, a script that begins with old credentials.
const FREE: Duration = Duration::from_secs(10);
/// The longest that an attempt waits for its turn; beyond it, it is refused unseen.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The most that an address owes, whatever it did: it is let in again soon after it ends.
const MOST: Duration = Duration::from_secs(FREE.as_secs() + LONGEST_WAIT.as_secs() + EACH.as_secs());
/// Addresses that are kept in mind; the one that is next to be forgotten gives way to a newer one.
const MAX_ADDRESSES: usize = 4096;
/// How often those are looked for that owe nothing any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Slows down who guesses credentials, by address: a wrong attempt costs time, and who owes much waits before the next
/// one is looked at, right or wrong, or else the time of the answer would tell them apart. Who never was wrong pays nothing
/// and takes no lock.
#[derive(Default)]
pub(crate) struct Throttle {
    /// Whether any address may owe something.
    owed: AtomicBool,
    debts: Mutex<Debts>,
}

#[derive(Default)]
struct Debts {
    /// When each address will have paid.
    paid: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl Throttle {
    /// Has credentials looked at in their turn, and takes note of wrong ones.
    ///
    /// # Errors
    /// What `look` answers, and `TooManyAttempts`.
    pub(crate) async fn guard<T>(&self, peer: IpAddr, look: impl Future<Output = Result<T>>) -> Result<T> {
        let charged = match self.charge_debtor(peer) {
            Ok(None) => false,
            Ok(Some(wait)) => {
                sleep(wait).await;
                true
            }
            Err(retry_after) => return Err(Error::TooManyAttempts { retry_after }),
        };
        let seen = look.await;
        match (charged, matches!(seen, Err(Error::Unauthenticated { .. }))) {
            (false, true) => self.debts().charge(network(peer), Instant::now(), &self.owed),
            (true, false) => self.debts().refund(network(peer)),
            _ => {}
        }
        seen
    }

    /// Whoever owes something pays for an attempt before it is looked at, so that many at once are slowed down too. Tells
    /// how long to wait before the look.
    fn charge_debtor(&self, peer: IpAddr) -> Result<Option<Duration>, Duration> {
        if !self.owed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (now, network, mut debts) = (Instant::now(), network(peer), self.debts());
        debts.sweep(now);
        self.owed.store(!debts.paid.is_empty(), Ordering::Relaxed);
        let Some(debt) = debts.paid.get(&network).map(|until| until.saturating_duration_since(now)) else {
            return Ok(None);
        };
        let wait = debt.saturating_sub(FREE);
        if wait > LONGEST_WAIT {
            return Err(wait);
        }
        debts.charge(network, now, &self.owed);
        Ok(Some(wait))
    }

    fn debts(&self) -> MutexGuard<'_, Debts> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debts {
    fn charge(&mut self, network: IpAddr, now: Instant, owed: &AtomicBool) {
        if self.paid.len() >= MAX_ADDRESSES && !self.paid.contains_key(&network) {
            let nearest = self.paid.iter().min_by_key(|(_, until)| **until).map(|(network, _)| *network);
            nearest.map(|network| self.paid.remove(&network));
        }
        let until = self.paid.entry(network).or_insert(now);
        *until = ((*until).max(now) + EACH).min(now + MOST);
        owed.store(true, Ordering::Relaxed);
    }

    fn refund(&mut self, network: IpAddr) {
        if let Some(until) = self.paid.get_mut(&network) {
            *until -= EACH;
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.paid.retain(|_, until| *until > now);
            self.swept = Some(now);
        }
    }
}

/// An address, or what one customer of IPv6 has at the least (RFC 6177 §2).
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::future::join_all;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    async fn wrong(throttle: &Throttle, peer: IpAddr) -> Error {
        let look = async { Err::<(), _>(Error::Unauthenticated { challenge: "Basic".into() }) };
        throttle.guard(peer, look).await.unwrap_err()
    }

    async fn right(throttle: &Throttle, peer: IpAddr) -> Result<()> {
        throttle.guard(peer, async { Ok(()) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_waits_and_others_do_not() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        for _ in 0..11 {
            wrong(&throttle, PEER).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        wrong(&throttle, PEER).await;
        assert_eq!(began.elapsed(), EACH);
        right(&throttle, OTHER).await.unwrap();
        assert_eq!(began.elapsed(), EACH);
        sleep(MOST).await;
        right(&throttle, PEER).await.unwrap();
        assert!(throttle.debts().paid.is_empty() && !throttle.owed.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn right_credentials_cost_nothing_and_end_the_wait() {
        let throttle = Throttle::default();
        for _ in 0..12 {
            wrong(&throttle, PEER).await;
        }
        let began = Instant::now();
        for _ in 0..1000 {
            right(&throttle, PEER).await.unwrap();
        }
        assert!(began.elapsed() <= EACH * 2, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_are_slowed_down_and_shut_nobody_out_for_long() {
        let (throttle, began) = (Throttle::default(), Instant::now());
        wrong(&throttle, PEER).await;
        let guesses = join_all((0..100).map(|_| wrong(&throttle, PEER))).await;
        let refused = guesses.iter().filter(|error| matches!(error, Error::TooManyAttempts { .. })).count();
        assert_eq!((refused, began.elapsed()), (85, LONGEST_WAIT));
        join_all((0..1000).map(|peer| wrong(&throttle, IpAddr::V4(Ipv4Addr::from_bits(peer))))).await;
        sleep(MOST).await;
        right(&throttle, PEER).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_addresses_takes_bounded_memory() {
        let throttle = Throttle::default();
        for address in 0..10_000_u128 {
            wrong(&throttle, Ipv6Addr::from_bits(address << 64 | 1).into()).await;
        }
        assert_eq!(throttle.debts().paid.len(), MAX_ADDRESSES);
        right(&throttle, PEER).await.unwrap();
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:2".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), PEER);
    }
}
