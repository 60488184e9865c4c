//! Medians, ratios of pairs, and whether a sample has two humps.

/// The values in order.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle one, or the mean of the two in the middle; not a number if there are none.
pub fn median(values: &[f64]) -> f64 {
    let values = sorted(values);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// The smallest and the largest.
pub fn range(values: &[f64]) -> (f64, f64) {
    let values = sorted(values);
    (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN))
}

/// Half the distance between the quartiles, as a part of the median: the noise of a median.
pub fn noise(values: &[f64]) -> f64 {
    let values = sorted(values);
    if values.len() < 4 {
        return f64::INFINITY;
    }
    let quarter = values.len() / 4;
    (values[values.len() - 1 - quarter] - values[quarter]) / 2.0 / median(&values)
}

/// The ratios of what was measured one after the other: drifts of the machine cancel out.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// The median of these ratios.
pub fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&ratios(of, to))
}

/// The centres of two clusters, if there are two: the largest gap between neighbours is wider than both clusters, and the
/// upper centre at least a half more than the lower one. Each cluster has at least two values.
pub fn two_humps(values: &[f64]) -> Option<(f64, f64)> {
    let values = sorted(values);
    let split = (2..values.len().saturating_sub(1))
        .max_by(|&a, &b| (values[a] - values[a - 1]).total_cmp(&(values[b] - values[b - 1])))?;
    let (low, high) = values.split_at(split);
    let width = |cluster: &[f64]| cluster[cluster.len() - 1] - cluster[0];
    let gap = high[0] - low[low.len() - 1];
    let centres = (median(low), median(high));
    (gap > width(low) && gap > width(high) && centres.1 > 1.5 * centres.0).then_some(centres)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(range(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }

    #[test]
    fn a_drift_that_both_have_is_no_ratio() {
        assert_eq!(ratio(&[10.0, 100.0, 20.0], &[20.0, 200.0, 40.0]), 0.5);
    }

    #[test]
    fn two_humps_are_told_from_one_and_from_an_outlier() {
        assert_eq!(two_humps(&[100.0, 101.0, 99.0, 500.0, 505.0, 100.0]), Some((100.0, 502.5)));
        assert_eq!(two_humps(&[100.0, 101.0, 102.0, 103.0, 104.0, 500.0]), None);
        assert_eq!(two_humps(&[100.0, 110.0, 120.0, 130.0]), None);
        assert_eq!(two_humps(&[1.0]), None);
    }

    #[test]
    fn noise_is_a_part_of_the_median() {
        assert_eq!(noise(&[1.0, 1.0, 1.0, 1.0]), 0.0);
        assert!(noise(&[1.0]).is_infinite());
    }
}
