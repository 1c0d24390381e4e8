//! The main job on real input, before your eyes: `cargo xtask demo`.
//!
//! A real agent process lives in a machine of the lab, connected to a real broker. A vendor's cloud sends its own `ota_create`
//! message; the device downloads over a line that breaks, reboots into the new version and reports it. Then what goes wrong in the
//! field goes wrong here. Everything shown is checked; what does not hold ends the demo with exit status 1.

mod acts;
mod adapters;
mod kit112;
mod show;
mod withnox;
mod world;
mod wudun;

use std::process::ExitCode;

use world::World;

fn main() -> ExitCode {
    let mut world = match World::build() {
        Ok(world) => world,
        Err(error) => {
            eprintln!("the demo cannot be set up: {error}");
            return ExitCode::FAILURE;
        }
    };
    match acts::all(&mut world) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            show::failed(&failure);
            for crash in world.machine.crashes() {
                eprintln!("  the agent ended by itself: {crash}");
            }
            let kept = world.keep();
            eprintln!(
                "  the agent's log:  {}",
                kept.join("machine/agent.log").display()
            );
            eprintln!("  the machine:      {}", kept.join("machine").display());
            ExitCode::FAILURE
        }
    }
}
