import { asRequestFailed } from './problem'
import { backoffSeconds } from './tail'

const TRIES = 4
const LONGEST_WAIT_SECONDS = 10

const sleep = (seconds: number): Promise<void> => new Promise((wake) => setTimeout(wake, seconds * 1000))

/** Repeats a request that is safe to repeat while the server, or the way to it, is away for a moment. */
export async function retried<T>(attempt: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt()
    } catch (reason) {
      const failed = asRequestFailed(reason)
      if (!failed.passing || failures === TRIES) throw failed
      await sleep(Math.min(failed.retryAfterSeconds ?? backoffSeconds(failures), LONGEST_WAIT_SECONDS))
    }
  }
}
