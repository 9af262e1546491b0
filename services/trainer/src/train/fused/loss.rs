//! Cross entropy of one trial's batch, by hand: its value and its slope. It must never see a tensor,
//! nor another trial.

/// Cross entropy with label smoothing (Szegedy et al. 2016) and class weights, as PyTorch has it.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    weights: Vec<f64>,
    total: f64,
    smoothing: f64,
}

impl CrossEntropy {
    /// One weight for each class.
    pub fn new(weights: Vec<f64>, smoothing: f64) -> Self {
        Self {
            total: weights.iter().sum(),
            weights,
            smoothing,
        }
    }

    /// The weight of a batch.
    pub fn weight_of(&self, labels: &[u32]) -> f64 {
        let weights = labels.iter().map(|&label| self.weights[label as usize]);
        weights.sum()
    }

    /// The sum of the weighted losses of `logits` ([samples, classes]); `slopes` becomes the gradient
    /// of that sum over `weight` by the logits.
    pub fn slopes(&self, logits: &[f32], labels: &[u32], weight: f64, slopes: &mut [f32]) -> f64 {
        let classes = self.weights.len();
        let sharp = (1.0 - self.smoothing) / weight;
        let smooth = self.smoothing / classes as f64;
        let rows = logits.chunks_exact(classes);
        let mut loss = 0.0;
        for ((z, p), &label) in rows.zip(slopes.chunks_exact_mut(classes)).zip(labels) {
            let log_sum = softmax(z, p);
            let label = label as usize;
            let scale = (sharp * self.weights[label]) as f32;
            loss -= (1.0 - self.smoothing) * self.weights[label] * f64::from(z[label] - log_sum);
            if self.smoothing > 0.0 {
                for (weight, z) in self.weights.iter().zip(z) {
                    loss -= smooth * weight * f64::from(z - log_sum);
                }
                let (all, each) = (smooth * self.total / weight, smooth / weight);
                for (p, own) in p.iter_mut().zip(&self.weights) {
                    *p = (scale + all as f32) * *p - (each * own) as f32;
                }
            } else {
                for p in p.iter_mut() {
                    *p *= scale;
                }
            }
            p[label] -= scale;
        }
        loss
    }
}

/// Probabilities of a row of logits; gives the logarithm of the sum of their exponentials.
pub fn softmax(z: &[f32], p: &mut [f32]) -> f32 {
    let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (p, z) in p.iter_mut().zip(z) {
        *p = libm::expf(z - top);
        sum += *p;
    }
    for p in p.iter_mut() {
        *p /= sum;
    }
    top + libm::logf(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_large_logits_do_not_overflow() {
        let mut p = [0.0; 3];
        let log_sum = softmax(&[1000.0, 1000.0, -1000.0], &mut p);
        assert_eq!(p, [0.5, 0.5, 0.0]);
        assert!((log_sum - 1_000.693_1).abs() < 1e-3);
        softmax(&[f32::NAN, 0.0, 0.0], &mut p);
        assert!(p.iter().all(|p| p.is_nan()), "a NaN stays visible: {p:?}");
    }

    #[test]
    fn slopes_are_those_of_the_loss() {
        let labels = [0, 2, 2, 1];
        let logits: Vec<f32> = (0..12).map(|i| ((i * 7 % 5) as f32) - 1.5).collect();
        for smoothing in [0.0, 0.2] {
            let loss = CrossEntropy::new(vec![0.5, 2.0, 1.0], smoothing);
            let weight = loss.weight_of(&labels);
            let mut slopes = vec![0.0; 12];
            loss.slopes(&logits, &labels, weight, &mut slopes);
            let mut waste = vec![0.0; 12];
            for at in 0..12 {
                let moved = |by: f32| {
                    let mut logits = logits.clone();
                    logits[at] += by;
                    logits
                };
                let mut at_distance = |by| loss.slopes(&moved(by), &labels, weight, &mut waste);
                let slope = (at_distance(1e-2) - at_distance(-1e-2)) / 2e-2 / weight;
                assert!(
                    (slope - f64::from(slopes[at])).abs() < 1e-4,
                    "{at}: {slope} is not {}",
                    slopes[at]
                );
            }
        }
    }
}
