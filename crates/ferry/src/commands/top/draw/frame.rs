//! The frame of a part of the screen.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::Block;

/// Draws it, and returns what is within.
pub(super) fn render(frame: &mut Frame<'_>, block: Block<'_>, area: Rect) -> Rect {
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}
