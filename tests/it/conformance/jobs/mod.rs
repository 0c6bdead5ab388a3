//! The suite of [`JobStore`](app::jobs::store::JobStore): every sentence of its contract in `src/jobs/store.rs`.

pub(crate) mod again;
pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod fence;
pub(crate) mod finish;
pub(crate) mod insert;
pub(crate) mod lease;
pub(crate) mod list;
pub(crate) mod passes;
pub(crate) mod retain;
pub(crate) mod transitions;

macro_rules! conformance_jobs {
    ($adapter:ident, $open:path) => {
        crate::conformance::suite!($adapter, $open, jobs, fixture::store, {
            transitions: [exactly_the_legal_ones_happen, every_job_of_a_mixed_batch_has_its_own_answer],
            insert: [
                a_queue_name_of_laxer_rules_is_read,
                what_is_stored_is_what_is_read,
                all_or_none,
                the_same_request_gets_the_first_answer,
                another_request_under_the_same_key_is_refused,
                keys_of_different_scopes_never_meet,
                an_expired_key_is_free_again,
                one_of_many_equal_requests_is_new,
                what_is_inserted_early_can_be_claimed_before_it_is_told,
                a_payload_of_256_kib_is_kept,
                reopening_keeps_everything,
            ],
            list: [
                newest_first_in_pages_without_gaps_or_doubles,
                pages_stay_whole_while_jobs_arrive,
                each_filter_alone,
                filters_together,
                nothing_found,
            ],
            claim: [
                starts_a_queued_job_with_a_lease,
                answers_in_the_order_of_the_ids,
                an_id_named_twice_is_won_once,
                a_paused_queue_keeps_its_jobs,
                of_racing_claimers_exactly_one_wins,
                a_later_run_has_a_higher_fence_and_no_old_progress,
            ],
            fence: [
                a_stale_finish_writes_nothing,
                a_stale_renewal_and_progress_write_nothing,
                a_run_ends_once,
                a_fence_of_the_future_is_as_stale,
                the_same_worker_does_not_inherit_its_lost_run,
                of_racing_finishes_exactly_one_is_written,
            ],
            finish: [
                succeed,
                succeed_with_nothing,
                many_large_results_at_once,
                retry_spends_an_attempt_and_waits,
                snooze_spends_none,
                fail_makes_a_dead_letter,
                cancel_ends_it,
                release_queues_it_again,
                a_requested_cancel_wins_over_running_again,
                a_requested_cancel_does_not_undo_an_end,
                an_error_is_kept_until_success,
                the_last_runs_are_kept,
                answers_come_in_the_order_given,
                an_end_and_its_event_are_one_step,
                a_crash_that_ends_a_job_is_told_if_somebody_listens,
            ],
            lease: [
                renewal_extends,
                renewal_repeats_the_cancel,
                expired_only_and_exactly_at_its_time,
                a_void_lease_queues_the_job_with_a_crash,
                the_last_crash_makes_a_dead_letter,
                jobs_that_crash_together_again_run_apart,
                what_has_ended_does_not_count_for_the_limit,
                a_requested_cancel_wins_over_a_crash,
                the_alive_are_spared,
                no_more_than_the_limit_until_none_is_left,
                of_racing_passes_one_takes_each_job,
                progress_is_kept_with_the_run,
            ],
            passes: [
                due_moves_the_earliest_first_and_only_due_ones,
                of_racing_due_passes_one_moves_each_job,
                next_due_is_the_earliest,
                waiting_goes_through_a_queue_by_age,
                waiting_jobs_that_came_together_are_not_skipped,
                purge_cancels_queued_jobs_of_one_queue,
            ],
            cancel: [
                waiting_jobs_end_at_once,
                a_running_job_is_asked,
                an_ended_job_stays_as_it_is,
                answers_come_in_the_order_of_the_ids,
                a_cancelled_job_cannot_start,
            ],
            again: [
                from_failed_cancelled_and_scheduled,
                at_a_time,
                refused_from_queued_running_and_succeeded,
                an_edit_is_applied,
                a_cancel_of_its_former_life_is_forgotten,
                the_history_stays,
                discard_forgets_dead_letters_only,
            ],
            retain: [
                each_end_by_its_own_age,
                what_has_not_ended_is_never_forgotten,
                batch_by_batch,
                expired_keys_go,
            ],
        });
    };
}

conformance_jobs!(sqlite, crate::support::adapters::Sqlite::open_fresh);
conformance_jobs!(mongodb, crate::support::adapters::Mongodb::open_fresh);
