//! One user's jobs leave places for others.

use windrow_core::ErrorKind;
use windrow_core::config::SchedulerConfig;

use super::house::House;
use super::*;

/// Does not end by itself.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000) AS t(x) WHERE x % 7 = 3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn security_m14_a_user_who_takes_every_place_holds_up_nobody_else() {
    let scheduler =
        SchedulerConfig { jobs_max: 3, queue_max: 8, user_jobs_max: 2, user_queue_max: 3, ..SchedulerConfig::default() };
    let house = House::open_with(CoordinatorOptions { scheduler, ..CoordinatorOptions::default() }).await;
    let mut cases = Cases::of("M14");
    let mut hers = Vec::new();
    for _ in 0..5 {
        let mut ann = house.client("ann", Role::Reader).await;
        hers.push(tokio::spawn(async move { ann.rows(ENDLESS).await }));
    }
    let open = || house.coordinator.status().jobs.iter().filter(|job| !job.progress.state.is_over()).count();
    crate::testing::eventually("her jobs run and wait", || open() == 5).await;
    let mut more = house.client("ann", Role::Reader).await;
    let refused = timer::deadline(PATIENCE, more.rows(ENDLESS)).await.expect("a place for a sixth job").unwrap_err();
    let error = crate::wire::from_status(&refused);
    assert_eq!(error.kind, ErrorKind::ResourcesExhausted);
    assert!(error.message.contains("scheduler.user_queue_max") && error.message.contains("ann"), "{error}");
    cases.case("one more job than may wait is refused, with the setting");
    house.still_answers("her jobs").await;
    assert!(hers.iter().all(|one| !one.is_finished()), "somebody else was served beside all of hers");
    cases.case("somebody else is served in between");
    hers.iter().for_each(tokio::task::JoinHandle::abort);
    crate::testing::eventually("her jobs end with their readers", || open() == 0).await;
    cases.case("hers end when she leaves");
    assert_eq!(more.rows("SELECT 1").await.unwrap(), 1);
    cases.case("she has places again");
    cases.are(4);
}
