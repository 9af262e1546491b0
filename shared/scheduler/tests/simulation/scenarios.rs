//! Situations that somebody will ask about, as scripts. The snapshots are the documentation.

use crate::script::play;

macro_rules! scenario {
    ($name:ident, $script:literal) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(play($script));
        }
    };
}

scenario!(
    a_grid_runs_to_its_end_and_is_promoted,
    "worker a joins 4 slots
     submit grid 9 trials, 4 epochs, promoted to tulips at 0.0
     show
     advance 5s
     show
     advance 15s
     show
     why grid"
);

scenario!(
    a_worker_dies_and_its_trials_go_on_elsewhere,
    "worker a joins 2 slots
     worker b joins 1 slots
     submit grid 3 trials, 40 epochs
     advance 20s
     show
     kill a
     advance 29s
     explain grid/2
     explain a
     advance 3s
     show
     explain grid/3
     explain a
     advance 40s
     start a
     advance 60s
     show
     why grid/2"
);

scenario!(
    only_the_coordinator_dies_and_nothing_starts_over,
    "worker a joins 4 slots
     submit grid 4 trials, 20 epochs
     advance 10s
     show
     restart coordinator
     advance 3s
     show
     advance 20s
     show"
);

scenario!(
    lease_expires_while_the_worker_trains_on,
    "worker a joins 1 slots
     submit grid 1 trials, 100 epochs
     advance 10s
     cut a
     advance 20s
     worker b joins 1 slots
     advance 15s
     show
     heal a
     advance 5s
     show
     why grid/1
     why a"
);

scenario!(
    a_short_cut_costs_nothing,
    "worker a joins 1 slots
     submit grid 1 trials, 60 epochs
     advance 10s
     cut a
     advance 25s
     show
     heal a
     advance 5s
     show"
);

scenario!(
    a_gang_is_not_starved_by_small_trials,
    "worker a joins 4 slots
     submit small 12 trials, 10 epochs
     submit large 1 trials, 4 slots, priority 70
     explain large/1
     explain small/9
     advance 14s
     show
     explain small/9
     advance 60s
     show"
);

scenario!(
    nobody_could_ever_serve_it_and_it_says_so,
    "submit early 1 trials
     why early
     explain early/1
     worker a joins 2 slots
     submit wide 1 trials, 4 slots
     submit far 1 trials, in moon
     pool big of 4 slots in moon
     submit wide 1 trials, 4 slots
     submit far 1 trials, in mars|moon
     why wide
     explain wide
     explain far/1
     worker b joins 4 slots in moon
     advance 1s
     show"
);

scenario!(
    higher_priority_takes_slots_by_checkpoint_and_yield,
    "worker a joins 2 slots
     submit grid 2 trials, 400 epochs
     advance 60s
     submit urgent 1 trials, 10 epochs, priority 70
     submit equal 1 trials, 10 epochs, priority 55
     explain urgent/1
     advance 58s
     show
     advance 3s
     show
     explain equal/1
     advance 15s
     show
     why grid/1
     why grid/2
     why urgent/1"
);

scenario!(
    projects_share_by_weight_and_keep_to_their_quotas,
    "project vision weighs 2
     project text has quota 1
     worker a joins 6 slots
     submit words 4 trials, 10 epochs, project text
     submit pictures 8 trials, 10 epochs, project vision
     submit sounds 8 trials, 10 epochs, project audio
     show
     explain words/2
     explain pictures/8
     explain sounds/8
     advance 20s
     show
     submit wide 1 trials, 2 slots, project text"
);

scenario!(
    trials_run_only_where_their_labels_are,
    "worker a joins 1 slots in a
     worker b joins 2 slots in b
     submit here 2 trials, 10 epochs, in b
     submit late 1 trials, 10 epochs, in b
     show
     explain late/1
     drain b
     advance 3s
     explain here/1
     undrain b
     advance 20s
     show"
);

scenario!(
    a_worker_on_which_all_breaks_is_excluded_for_a_while,
    "worker a joins 1 slots
     worker b joins 1 slots
     a breaks everything
     submit grid 6 trials, 8 epochs
     advance 30s
     show
     explain a
     explain grid/6
     advance 200s
     show
     why grid/1"
);

scenario!(
    what_breaks_everywhere_excludes_nobody,
    "worker a joins 1 slots
     worker b joins 1 slots
     submit bad 3 trials, 8 epochs, 4 restarts
     bad/1 will always crash
     bad/2 will always crash
     bad/3 will always crash
     advance 40s
     explain a
     explain b
     show"
);

scenario!(
    pause_writes_checkpoints_and_resume_goes_on,
    "worker a joins 2 slots
     submit grid 3 trials, 20 epochs
     advance 6s
     pause grid
     explain grid
     advance 4s
     show
     explain grid/1
     explain grid/3
     resume grid
     advance 1s
     show
     advance 60s
     show
     why grid/1"
);

scenario!(
    cancel_takes_everything_back_at_once,
    "worker a joins 2 slots
     submit grid 3 trials, 20 epochs
     advance 6s
     cancel grid
     show
     pause grid
     advance 5s
     submit next 1 trials, 2 epochs
     advance 5s
     show
     why grid"
);

scenario!(
    stop_ends_a_trial_with_what_it_has,
    "worker a joins 1 slots
     submit grid 2 trials, 100 epochs
     advance 10s
     stop grid/1
     stop grid/2
     advance 3s
     show
     stop grid/2
     why grid/1
     why grid/2
     why grid"
);

scenario!(
    a_trainer_that_does_not_listen_is_revoked,
    "worker a joins 1 slots
     submit grid 1 trials, 400 epochs
     grid/1 will not listen
     advance 10s
     pause grid
     advance 20s
     explain grid/1
     advance 12s
     show
     why grid/1"
);

scenario!(
    crashes_back_off_and_run_out,
    "worker a joins 1 slots
     submit grid 2 trials, 5 epochs, 1 restarts
     grid/1 will crash
     grid/1 will crash
     grid/2 will diverge
     advance 3s
     explain grid/1
     advance 30s
     show
     why grid/1
     why grid/2
     why grid"
);

scenario!(
    what_cannot_start_costs_no_attempt,
    "worker a joins 1 slots
     submit grid 1 trials, 2 epochs, 0 restarts
     grid/1 will not start
     grid/1 will not start
     grid/1 will not start
     grid/1 will not start
     advance 4s
     explain grid/1
     explain a
     advance 30s
     show
     why grid/1"
);

scenario!(
    a_drained_worker_yields_what_it_has,
    "worker a joins 2 slots
     submit grid 4 trials, 10 epochs
     advance 2s
     drain a in 4s
     explain a
     advance 3s
     explain grid/1
     advance 2s
     explain grid/1
     advance 15s
     show
     explain grid/3
     drain a
     kill a
     start a
     advance 30s
     show"
);

scenario!(
    a_failed_gate_leaves_the_alias_where_it_is,
    "worker a joins 2 slots
     submit first 1 trials, 2 epochs, promoted to tulips at 0.0
     advance 10s
     submit second 1 trials, 2 epochs, promoted to tulips at 2.0
     advance 10s
     show
     why second"
);

scenario!(
    a_grid_of_head_only_trials_shares_two_leases,
    "worker a joins 2 slots
     submit grid 9 trials, 4 epochs, sharing, promoted to tulips at 0.0
     show
     explain grid/7
     grid/2 will diverge
     grid/8 will be ended by its trainer
     advance 3s
     show
     advance 15s
     show
     why grid/1
     why grid/2
     why grid/8
     why grid"
);

scenario!(
    a_shared_lease_that_crashes_is_leased_again_in_halves,
    "worker a joins 1 slots
     submit grid 6 trials, 4 epochs, 1 restarts, sharing
     grid/3 will always crash
     advance 3s
     show
     advance 30s
     show
     why grid/1
     why grid/3
     why grid/6"
);

scenario!(
    a_stop_of_one_trial_lets_its_neighbours_go_on,
    "worker a joins 1 slots
     submit grid 3 trials, 20 epochs, sharing
     advance 8s
     stop grid/2
     explain grid/1
     advance 5s
     show
     why grid/1
     why grid/2"
);
