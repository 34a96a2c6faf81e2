//! While everything stays up: faults that somebody asks for on standard input.

use owo_colors::OwoColorize as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};

use crate::between::Fault;
use crate::screen::Screen;
use crate::topology::Topology;

/// Lets happen what is asked for, a letter a line. Ends only with an error; at the end of the input it waits for ever.
pub(crate) async fn play(screen: &Screen, topology: &Topology) -> anyhow::Error {
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(letter) = line.trim().chars().next() else { continue };
        let Some(fault) = Fault::ALL.into_iter().find(|fault| fault.letter() == letter.to_ascii_lowercase()) else {
            let letters = Fault::ALL.map(|fault| fault.letter().to_string()).join(", ");
            screen.print(format_args!("nothing happens on {letter:?}; what there is: {letters}"));
            continue;
        };
        screen.print(format_args!(
            "{} {}: {}",
            fault.sign().yellow().bold(),
            fault.what().bold(),
            fault.remark().dimmed()
        ));
        if let Err(error) = topology.between.strike(fault, &topology.initiator_tunnel).await {
            return error;
        }
    }
    std::future::pending().await
}
