//! Lines of bounded length from a stream: what is longer is cut, never kept in memory.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Reads one line into `line` (without its end), keeping at most `limit` bytes. `None` at the end
/// of the stream; `Some(true)` when the line was longer than the limit.
pub async fn next_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    limit: usize,
    line: &mut Vec<u8>,
) -> std::io::Result<Option<bool>> {
    line.clear();
    let (mut cut, mut any) = (false, false);
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(any.then_some(cut));
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let text = &chunk[..end.unwrap_or(chunk.len())];
        let room = limit.saturating_sub(line.len());
        cut |= text.len() > room;
        line.extend_from_slice(&text[..text.len().min(room)]);
        let used = end.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(cut));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn lines(text: &[u8], buffer: usize, limit: usize) -> Vec<(String, bool)> {
        let mut reader = BufReader::with_capacity(buffer, text);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while let Some(cut) = next_line(&mut reader, limit, &mut line).await.unwrap() {
            all.push((String::from_utf8_lossy(&line).into_owned(), cut));
        }
        all
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_the_next_one_is_whole() {
        for buffer in [1, 3, 100] {
            assert_eq!(
                lines(b"abcdefgh\nij\r\n\nlast", buffer, 4).await,
                [
                    ("abcd".to_owned(), true),
                    ("ij".to_owned(), false),
                    (String::new(), false),
                    ("last".to_owned(), false)
                ]
            );
        }
    }
}
