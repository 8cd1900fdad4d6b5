//! Calls at random, always the same ones.

use super::*;

const SEQUENCES: u64 = 2000;
const CALLS: usize = 12;

/// Chance from a seed (splitmix64).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Small numbers, addresses in the memory and about its end, and what lies beyond.
    pub(super) fn argument(&mut self) -> u64 {
        match self.below(10) {
            0..=3 => self.of(&[0, 0, 1, 1, 2, 2, 3, 4]),
            4..=6 => self.of(&[0x100, 0x200, 0x208, 0x230, 0x400, 0x1000, 0x8000]),
            7 => self.of(&[5, 6, 7, 8, 16, 31, 48, 0x101, 0x102, 0x104]),
            8 => self.of(&[0xffd0, 0xfff0, 0xfff8, 0xfffc, 0xfffe, 0xffff, 0x1_0000, 0x1_0001]),
            _ => self.of(&[1 << 14, 1 << 20, 1 << 28, 0x7fff_ffff, 0xffff_fff8, 0xffff_ffff, u64::MAX]),
        }
    }

    /// Now and then, arguments of which a call makes something.
    fn sound(&mut self, name: &str) -> Option<[u64; 4]> {
        let count = self.of(&[1, 2, 3]);
        match (name, self.below(3)) {
            ("poll_oneoff", 1..) => Some([0x200 + 48 * self.of(&[0, 1, 2, 3]), 0x8000, count, 0xf000]),
            ("fd_read", 1..) => {
                Some([self.of(&[0, 0, 0, 1]), 0x100 + 8 * self.of(&[0, 1, 2, 3]), count, 0xf000])
            }
            ("fd_write", 1..) => {
                Some([self.of(&[0, 1, 1, 2]), 0x100 + 8 * self.of(&[0, 1, 2, 3]), count, 0xf000])
            }
            _ => None,
        }
    }

    /// A memory with lists of buffers at 0x100 and of things to wait for at 0x200, most of them sound.
    pub(super) fn page(&mut self) -> Vec<u8> {
        let mut page: Vec<u8> = (0..PAGE / 8).flat_map(|_| self.next().to_le_bytes()).collect();
        page[0x1000..0x8000].fill(b'x');
        for buffer in 0..16 {
            let length = self.of(&[0, 0, 1, 3, 8, 100, 5000, 1 << 17, u32::MAX]);
            let at = self.of(&[0x1000, 0x1001, 0x4000, 0xfff0, 0xffff, 0x1_0000, 0xffff_ffff]);
            let place = 0x100 + 8 * buffer;
            page[place..place + 4].copy_from_slice(&u32::to_le_bytes(at));
            page[place + 4..place + 8].copy_from_slice(&u32::to_le_bytes(length));
        }
        for subscription in 0..8 {
            self.subscription(&mut page[0x200 + 48 * subscription..]);
        }
        page
    }

    fn subscription(&mut self, place: &mut [u8]) {
        let tag = self.of(&[0, 0, 0, 1, 1, 2, 2, 3]);
        place[8] = tag;
        let clock_or_fd: u32 = self.of(&[0, 0, 1, 1, 1, 2, 3, 7]);
        place[16..20].copy_from_slice(&clock_or_fd.to_le_bytes());
        let flags: u16 = self.of(&[0, 0, 1, 1, 1, 2]);
        // An hour that is soon would come while one host waits, and be over for the other. The others are whole steps of
        // the guest's clocks, since our host alone rounds waits up.
        let timeout: u64 = match flags {
            1 => self.of(&[0, 1, 1 << 62, u64::MAX]),
            _ => self.of(&[0, 0, GRAIN_NANOS, 1_000_000, 1_000_000_000, 1 << 62, u64::MAX]),
        };
        place[24..32].copy_from_slice(&timeout.to_le_bytes());
        place[40..42].copy_from_slice(&flags.to_le_bytes());
    }

    fn given(&mut self) -> Given {
        let sent = self.of(&[
            Sent::Pieces(&["hello", "", " world"]),
            Sent::Pieces(&[]),
            Sent::Pieces(&["", "a"]),
            Sent::BreaksOff,
            Sent::Never,
        ]);
        Given { sent, combined: self.below(2) == 0 }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_at_random_end_the_same() {
    let hosts = Hosts::new();
    let mut ends = [0_usize; 4];
    for seed in 0..SEQUENCES {
        let mut chance = Chance(seed);
        let mut both = hosts.both(chance.given()).await;
        let page = chance.page();
        both.write(0, &page);
        for _ in 0..CALLS {
            let function = match chance.below(3) {
                0 => chance.below(hosts.functions.len()),
                // Those that do most.
                1 => named(&hosts, chance.of(&["fd_read", "fd_write", "poll_oneoff"])),
                _ => named(&hosts, chance.of(&["fd_close", "fd_renumber", "fd_fdstat_get", "environ_get"])),
            };
            let Function { name, wide } = &hosts.functions[function];
            if name == "proc_exit" {
                continue;
            }
            let args = match chance.sound(name) {
                Some(args) => args.to_vec(),
                None => wide.iter().map(|_| chance.argument()).collect(),
            };
            let fickle = ["clock_time_get", "random_get"].contains(&name.as_str());
            let end = if fickle { both.call_fickle(name, &args).await } else { both.call(name, &args).await };
            match end {
                End::Errno(0) => ends[0] += 1,
                End::Errno(_) => ends[1] += 1,
                End::Trap => {
                    ends[2] += 1;
                    break;
                }
                End::Waits => {
                    ends[3] += 1;
                    break;
                }
            }
        }
        both.output().await;
    }
    assert!(ends.iter().all(|count| *count > 50), "each end is seen: {ends:?}");
}

fn named(hosts: &Hosts, name: &str) -> usize {
    hosts.functions.iter().position(|function| function.name == name).unwrap()
}
