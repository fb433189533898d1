import { OFFLINE, type RequestFailed, asRequestFailed } from './problem'
import { backoffSeconds } from './tail'

const TRIES = 4
const LONGEST_WAIT_SECONDS = 10

/** Nobody should look at a question for so long that will not go out before. */
const isFar = ({ code, retryAfterSeconds }: RequestFailed): boolean =>
  code === OFFLINE || (retryAfterSeconds ?? 0) > LONGEST_WAIT_SECONDS

const sleep = (seconds: number): Promise<void> => new Promise((wake) => setTimeout(wake, seconds * 1000))

/** Repeats a request that is safe to repeat while the server, or the way to it, is away for a moment. */
export async function retried<T>(attempt: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await attempt()
    } catch (reason) {
      const failed = asRequestFailed(reason)
      if (!failed.passing || failures === TRIES || isFar(failed)) throw failed
      await sleep(failed.retryAfterSeconds ?? backoffSeconds(failures))
    }
  }
}
