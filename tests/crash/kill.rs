//! Kills at every kind of system call, in every story.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::story::{Outcome, STORIES, Story};
use crate::trace::{self, Point, Trace};
use crate::world::World;

/// The outcome of one story's kills.
#[derive(Default)]
struct Tally {
    possible: usize,
    struck: usize,
    /// The program had ended before it got there.
    missed: usize,
    kept: usize,
    not_read: usize,
    not_written: usize,
    failed: Vec<String>,
}

type Jobs = VecDeque<(Story, Point)>;

/// Strikes this many points of each story whose title contains `only`, and prints a table. Returns whether all is well.
pub async fn run(worlds: &[World], most: usize, only: &str) -> Result<bool, String> {
    let (mut jobs, mut tallies) = (Jobs::new(), BTreeMap::new());
    let [first, ..] = worlds else { return Err("no world".to_owned()) };
    if !STORIES.iter().any(|story| story.to_string().contains(only)) {
        return Ok(true);
    }
    println!("Kills");
    for (number, story) in STORIES.into_iter().enumerate().filter(|(_, story)| story.to_string().contains(only)) {
        let (possible, chosen) = survey(first, story, most).await.map_err(|why| format!("{story}: {why}"))?;
        jobs.extend(chosen.into_iter().map(|point| (story, point)));
        tallies.insert(number, Tally { possible, ..Tally::default() });
    }
    let (began, count) = (Instant::now(), jobs.len());
    let (jobs, tallies) = (Mutex::new(jobs), Mutex::new(tallies));
    let workers = worlds.iter().map(|world| work(world, &jobs, &tallies));
    crate::all(workers).await;
    let tallies = tallies.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("  {:.1} kills a second", count as f64 / began.elapsed().as_secs_f64());
    Ok(report(&tallies))
}

/// Runs the story without a kill, and records where kills are possible.
async fn survey(world: &World, story: Story, most: usize) -> Result<(usize, Vec<Point>), String> {
    let trace = Trace::watch(&world.path("trace"));
    let (told, _) = story.happen(world, &trace).await?;
    if !told.done {
        return Err(format!("it fails without a kill: {}\n{}", told.text, world.log()));
    }
    let calls = trace.calls().await;
    story.check(world, &told, &calls).await?;
    let state = world.state_dir().display().to_string();
    let points = trace::points(&calls);
    let possible = points.len();
    // Everything before the first access to the vault is the same in every story: libraries and settings.
    let beginning = points.iter().position(|(_, call)| call.text.contains(&state)).unwrap_or(0);
    let (vault, other): (Vec<_>, Vec<_>) =
        points.into_iter().skip(beginning).partition(|(_, call)| call.text.contains(&state));
    let vault = spread(vault, most * 2 / 3);
    let other = spread(other, most - vault.len());
    Ok((possible, vault.into_iter().chain(other).map(|(point, _)| point).collect()))
}

/// At most this many, evenly from first to last.
pub fn spread<T>(items: Vec<T>, most: usize) -> Vec<T> {
    let count = items.len();
    let is_chosen = |number: usize| number * most / count != (number + 1) * most / count;
    match count > most {
        true => items.into_iter().enumerate().filter(|(number, _)| is_chosen(*number)).map(|(_, item)| item).collect(),
        false => items,
    }
}

async fn work(world: &World, jobs: &Mutex<Jobs>, tallies: &Mutex<BTreeMap<usize, Tally>>) {
    loop {
        let Some((story, point)) = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
        let result = strike(world, story, &point).await;
        let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let number = STORIES.iter().position(|other| *other == story).unwrap_or_default();
        let tally = tallies.entry(number).or_default();
        match result {
            Ok((false, _)) => tally.missed += 1,
            Ok((true, _)) | Err(_) => tally.struck += 1,
        }
        match result {
            Ok((_, Outcome::Kept)) => tally.kept += 1,
            Ok((_, Outcome::NotRead)) => tally.not_read += 1,
            Ok((_, Outcome::NotWritten)) => tally.not_written += 1,
            Err(why) => tally.failed.push(format!("{story}, {point}: {why}")),
        }
    }
}

/// One kill. Returns whether it happened, and what is left.
async fn strike(world: &World, story: Story, point: &Point) -> Result<(bool, Outcome), String> {
    let trace = Trace::kill(&world.path("trace"), point);
    let (told, killed) = story.happen(world, &trace).await?;
    let calls = trace.calls().await;
    let last = calls.last().map(|call| call.text.clone()).unwrap_or_default();
    let outcome = story.check(world, &told, &calls).await;
    outcome.map(|outcome| (killed, outcome)).map_err(|why| format!("{why}\nkilled at {last}"))
}

fn report(tallies: &BTreeMap<usize, Tally>) -> bool {
    let title = "story: who was killed";
    println!(
        "| {title:44} | possible | struck | missed | kept | unread | unwritten | FAILED |\n|---|---|---|---|---|---|---|---|"
    );
    let mut sum = [0; 7];
    for (number, tally) in tallies {
        let Tally { possible, struck, missed, kept, not_read, not_written, failed } = tally;
        let row = [*possible, *struck, *missed, *kept, *not_read, *not_written, failed.len()];
        print_row(&STORIES.get(*number).map(ToString::to_string).unwrap_or_default(), row);
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    print_row("all", sum);
    for why in tallies.values().flat_map(|tally| &tally.failed) {
        println!("  FAILED {}", why.replace('\n', "\n         | "));
    }
    sum.last() == Some(&0)
}

fn print_row(title: &str, [possible, struck, missed, kept, not_read, not_written, failed]: [usize; 7]) {
    println!(
        "| {title:44} | {possible:8} | {struck:6} | {missed:6} | {kept:4} | {not_read:6} | {not_written:9} | {failed:6} |"
    );
}
