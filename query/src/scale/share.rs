//! Which worker reads which files. A file goes to the same one each time, as long as that keeps the work even: it has the file's footer in
//! memory and its parts on disk. When a worker comes or goes, only its own share moves.

use sluice_store::FileToRead;

/// A worker may get this much more than its even share, in parts of a hundred, before files go to the next of their list.
const UNEVEN: u64 = 25;

/// For each worker the places of its files in `files`, in their order. No path is in `files` twice: whoever reads a file reads it for all
/// scans of a fragment.
pub(super) fn share(files: &[FileToRead], workers: &[&str]) -> Vec<Vec<usize>> {
    let mut shares = vec![Vec::new(); workers.len()];
    if workers.is_empty() {
        return shares;
    }
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let even = total.div_ceil(workers.len() as u64);
    let most = even.saturating_add(even / 100 * UNEVEN);
    let mut loads = vec![0u64; workers.len()];
    // The largest first: small ones fill what is left even.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| {
        files[*b]
            .bytes
            .cmp(&files[*a].bytes)
            .then_with(|| files[*a].path.cmp(&files[*b].path))
    });
    for at in order {
        let file = &files[at];
        let fits = |worker: &usize| loads[*worker].saturating_add(file.bytes) <= most;
        let wanted = wishes(&file.path, workers).into_iter().find(fits);
        let least = (0..workers.len()).min_by_key(|worker| loads[*worker]);
        let Some(worker) = wanted.or(least) else { continue };
        loads[worker] += file.bytes;
        shares[worker].push(at);
    }
    for share in &mut shares {
        share.sort_unstable();
    }
    shares
}

/// All workers, in an order that is this file's own: <https://en.wikipedia.org/wiki/Rendezvous_hashing>.
fn wishes(path: &str, workers: &[&str]) -> Vec<usize> {
    let weight = |worker: &&str| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(worker.as_bytes());
        hasher.update(&[0]);
        hasher.update(path.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut ranked: Vec<(usize, [u8; 32])> = workers.iter().map(weight).enumerate().collect();
    ranked.sort_unstable_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    ranked.into_iter().map(|(worker, _)| worker).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKERS: [&str; 4] = ["a:1", "b:1", "c:1", "d:1"];

    fn files(sizes: &[u64]) -> Vec<FileToRead> {
        let file = |(at, bytes): (usize, &u64)| FileToRead {
            path: format!("day=2026-11-21/part-{at}.parquet"),
            bytes: *bytes,
        };
        sizes.iter().enumerate().map(file).collect()
    }

    proptest! {
        #[test]
        fn each_file_is_read_once_and_nobody_is_given_much_more_than_others(
            sizes in prop::collection::vec(1u64..1_000_000, 0..200), workers in 1usize..5,
        ) {
            let files = files(&sizes);
            let shares = share(&files, &WORKERS[..workers]);
            let mut all: Vec<usize> = shares.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..files.len()).collect::<Vec<_>>());
            let even = sizes.iter().sum::<u64>().div_ceil(workers as u64);
            let largest = sizes.iter().copied().max().unwrap_or(0);
            for of_one in &shares {
                let load: u64 = of_one.iter().map(|at| sizes[*at]).sum();
                prop_assert!(load <= even + even / 4 + largest, "{} of {}", load, even);
                prop_assert!(of_one.is_sorted());
            }
        }
    }

    #[test]
    fn a_worker_that_goes_leaves_the_others_most_of_what_they_had() {
        let files = files(&[1_000; 400]);
        let before = share(&files, &WORKERS);
        let after = share(&files, &WORKERS[..3]);
        let stayed: usize = (0..3)
            .map(|worker| before[worker].iter().filter(|at| after[worker].contains(at)).count())
            .sum();
        let had: usize = before[..3].iter().map(Vec::len).sum();
        assert!(stayed * 10 >= had * 9, "{stayed} of {had}");
    }
}
