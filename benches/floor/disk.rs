//! A record on disk, as small as one of a use: written and synced.

use std::fs::File;
use std::io::Write as _;

use criterion::Criterion;

use crate::clock;

/// A record of a use by a root capability, roughly.
const RECORD: usize = 900;

pub(crate) fn record(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("floor")).unwrap();
    file.set_len(256 << 20).unwrap();
    let mut group = criterion.benchmark_group("floor");
    group.bench_function("a record written and synced", |bench| {
        bench.iter_custom(|count| {
            let (took, ()) = clock::timed(|| {
                for _ in 0..count {
                    file.write_all(&[0; RECORD]).unwrap();
                    file.sync_data().unwrap();
                }
            });
            took
        })
    });
    group.finish();
}
