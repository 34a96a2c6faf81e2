//! Linear models through measured points, by least squares.

use serde::Serialize;

/// `value = coefficients · terms`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Model {
    /// One for each term.
    pub(super) coefficients: Vec<f64>,
    /// The greatest distance of a point from the model, as a share of the greatest value.
    pub(super) miss: f64,
}

impl Model {
    /// The model that is nearest to the points, each of which is its terms and its value. None if the points do not
    /// determine it.
    pub(super) fn fit(points: &[(Vec<f64>, f64)]) -> Option<Self> {
        let size = points.first()?.0.len();
        // The normal equations, each with its right side behind it.
        let mut rows = vec![vec![0.0; size + 1]; size];
        for (terms, value) in points {
            for (row, left) in rows.iter_mut().zip(terms) {
                for (cell, right) in row.iter_mut().zip(terms.iter().chain([value])) {
                    *cell += left * right;
                }
            }
        }
        let coefficients = solve(rows)?;
        let mut model = Self { coefficients, miss: 0.0 };
        let most = points.iter().map(|(_, value)| value.abs()).fold(f64::MIN_POSITIVE, f64::max);
        let misses = points.iter().map(|(terms, value)| (model.at(terms) - value).abs() / most);
        model.miss = misses.fold(0.0, f64::max);
        Some(model)
    }

    /// The value at some terms.
    pub(super) fn at(&self, terms: &[f64]) -> f64 {
        self.coefficients.iter().zip(terms).map(|(coefficient, term)| coefficient * term).sum()
    }
}

/// Gauss–Jordan elimination with the largest pivot.
fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let size = rows.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let largest = rows[column].iter().take(size).map(|cell| cell.abs()).fold(0.0, f64::max);
        let lead = rows[column][column];
        // What is left of a dependent row is rounding.
        if lead.abs() <= largest * 1e-9 || largest == 0.0 {
            return None;
        }
        let pivot_row: Vec<f64> = rows[column].iter().map(|cell| cell / lead).collect();
        for (_, row) in rows.iter_mut().enumerate().filter(|(number, _)| *number != column) {
            let factor = row[column];
            for (cell, pivot) in row.iter_mut().zip(&pivot_row) {
                *cell -= factor * pivot;
            }
        }
        rows[column] = pivot_row;
    }
    rows.into_iter().map(|row| row.last().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_through_exact_points_is_found() {
        let points: Vec<_> = [(1000.0, 30.0), (2000.0, 70.0), (4000.0, 0.0), (8000.0, 200.0)]
            .map(|(sessions, rate)| (vec![1.0, sessions, rate], 0.01 + 2e-6 * sessions + 5e-4 * rate))
            .into();
        let model = Model::fit(&points).unwrap();
        for (found, due) in model.coefficients.iter().zip([0.01, 2e-6, 5e-4]) {
            assert!((found - due).abs() < due * 1e-6, "{found} is not {due}");
        }
        assert!(model.miss < 1e-9);
    }

    #[test]
    fn a_line_lies_between_the_points_and_says_how_far_it_misses() {
        let points = [(vec![1.0, 0.0], 1.0), (vec![1.0, 1.0], 1.0), (vec![1.0, 2.0], 4.0)];
        let model = Model::fit(&points).unwrap();
        assert!((model.at(&[1.0, 1.0]) - 2.0).abs() < 1e-9);
        assert!((model.miss - 0.25).abs() < 1e-9, "{}", model.miss);
    }

    #[test]
    fn points_that_leave_it_open_give_none() {
        assert!(Model::fit(&[(vec![1.0, 1.0], 3.0), (vec![2.0, 2.0], 6.0)]).is_none());
        assert!(Model::fit(&[]).is_none());
    }
}
