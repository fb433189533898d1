// Every word that the page shows, in one place.
import type { StageState } from './types/streaming'

const plural = (count: number, one: string, many: string): string => `${count} ${count === 1 ? one : many}`

export function duration(milliseconds: number): string {
  if (milliseconds < 100) return `${milliseconds} ms`
  const seconds = Math.round(milliseconds / 1000)
  return seconds < 60
    ? `${(milliseconds / 1000).toFixed(1)} s`
    : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' })

type Found = Pick<StageState, 'passages' | 'sources'>

interface StageWords {
  waiting: string
  active: string
  done(found: Found): string
}

const stages: Record<string, StageWords> = {
  retrieval: {
    waiting: 'Search',
    active: 'Searching',
    done: ({ passages }) => (passages == null ? 'Searched' : plural(passages, 'passage', 'passages')),
  },
  reranking: {
    waiting: 'Choose',
    active: 'Choosing',
    done: ({ sources }) => (sources == null ? 'Chosen' : `${sources} chosen`),
  },
  generation: { waiting: 'Write', active: 'Writing', done: () => 'Written' },
}

// Another graph's node has only its name: `check_dose` → "Check dose".
function spoken(name: string): string {
  const words = name.replaceAll(/[_-]+/g, ' ').trim()
  return words.charAt(0).toUpperCase() + words.slice(1)
}

// `Searched 24 passages, 6 chosen`, else for another graph `3 steps`.
function worked(all: readonly StageState[], abstained: boolean): string {
  const found = all.find((stage) => stage.passages != null)
  const chosen = all.find((stage) => stage.sources != null)
  if (!found) return all.length > 1 ? plural(all.length, 'step', 'steps') : ''
  const searched = `Searched ${plural(found.passages ?? 0, 'passage', 'passages')}`
  if (!chosen) return searched
  return `${searched}, ${abstained ? 'none fits' : `${chosen.sources} chosen`}`
}

export const texts = {
  product: 'Pulseline',
  scope: 'General information only. Not a diagnosis, and not for emergencies.',

  empty: {
    heading: 'What would you like to understand?',
    lead: 'Ask about a symptom, a condition, a test or a common medicine. Each answer names the passages it rests on.',
    examplesLabel: 'Example questions',
    examples: [
      'What are the symptoms of iron deficiency?',
      'How is high blood pressure measured and treated?',
      'When should a fever be seen by a doctor?',
      'Can I take ibuprofen and paracetamol together?',
    ],
  },

  composer: {
    label: 'Your question',
    placeholder: 'Ask a health question',
    reply: 'Your answer',
    send: 'Send',
    stop: 'Stop',
    stopping: 'Stopping…',
    tooLong: (over: number) => `${plural(over, 'character', 'characters')} too long`,
    left: (count: number) => `${plural(count, 'character', 'characters')} left`,
  },

  conversation: {
    label: 'Conversation',
    you: 'You asked',
    answer: 'Answer',
    jump: 'Jump to the latest',
    loading: 'Opening the conversation…',
    missingTitle: 'Not here',
    missingHeading: 'This conversation is not here',
    missing: 'It was deleted, or it belongs to someone else.',
    unreachableHeading: 'The conversation could not be opened',
  },

  question: {
    askedAt: (when: Date) => `Asked ${moment.format(when)}`,
    edit: 'Edit and ask again',
    save: 'Ask again',
    cancel: 'Keep as it was',
    editLabel: 'Edit your question',
    sending: 'Still sending…',
    resend: 'Try again',
    discard: 'Back to the text field',
  },

  answer: {
    copy: 'Copy',
    copied: 'Copied',
    regenerate: 'Answer again',
    helpful: 'Helpful',
    unhelpful: 'Not helpful',
    uncopied: 'The answer could not be copied. Select its text to copy it.',
    unjudged: 'Your vote could not be stored. Try again.',
    stopped: 'Stopped',
    stoppedEmpty: 'Stopped before the answer began.',
    interrupted: 'Interrupted',
    abstained: 'No good source found',
    restarting: 'Starting this answer again…',
    endedAt: (when: Date) => `Ended ${moment.format(when)}`,
    retry: 'Try again',
    failed: 'The answer could not be finished.',
  },

  asked: {
    heading: 'Your answer is needed',
    one: 'Write it below.',
    paused: 'The answer is paused here.',
    goOn: 'Go on',
    send: 'Send the answers',
  },

  stages: {
    label: 'Progress of this answer',
    reading: 'Reading your question',
    name: (name: string) => stages[name] ?? { waiting: spoken(name), active: spoken(name), done: () => spoken(name) },
    summary: (all: readonly StageState[], abstained: boolean, milliseconds: number | null) => {
      const took = milliseconds === null ? '' : duration(milliseconds)
      const work = worked(all, abstained)
      if (work && took) return `${work} · ${took}`
      return work || (took ? `Answered in ${took}` : '')
    },
  },

  sources: {
    heading: 'Sources',
    label: 'Sources of this answer',
    count: (count: number) => plural(count, 'source', 'sources'),
    open: (number: number, title: string) => `Source ${number}: ${title}`,
    close: 'Close sources',
    read: 'Read for this answer',
    uncited: (count: number) => `${count} more ${count === 1 ? 'was' : 'were'} read`,
    visit: (host: string) => `Read at ${host}`,
  },

  emergency: {
    heading: 'Get help now',
    // Those that the answer names are shown: the server knows in which region it stands.
    numbers: [
      { number: '112', where: 'Europe and most mobile phones' },
      { number: '911', where: 'North America' },
      { number: '999', where: 'United Kingdom' },
      { number: '000', where: 'Australia' },
      { number: '111', where: 'New Zealand' },
      { number: '988', where: 'Crisis line, United States and Canada' },
      { number: '116 123', where: 'Crisis line, United Kingdom and Ireland' },
      { number: '13 11 14', where: 'Crisis line, Australia' },
      { number: '1737', where: 'Crisis line, New Zealand' },
    ],
    anywhere: ['112', '911'] as readonly string[],
    call: (number: string) => `Call ${number}`,
  },

  connection: {
    lost: 'Connection lost. The answer is still being written. Reconnecting…',
    offline: 'You are offline. The answer is still being written and will appear when you are back.',
    caughtUp: 'Caught up',
  },

  problem: {
    unreachable: 'The server could not be reached. Check your connection and try again.',
    offline: 'You are offline. Try again when you are back.',
    offlineSend:
      'You are offline. This is sent when you are back, if you stay in this chat. If you leave, it waits here, unsent.',
    offlineStop: 'You are offline. The stop is sent when you are back.',
    offlineOpen: 'You are offline. The conversation opens when you are back.',
    wait: (seconds: number) =>
      `Try again in ${seconds < 100 ? plural(Math.ceil(seconds), 'second', 'seconds') : plural(Math.ceil(seconds / 60), 'minute', 'minutes')}.`,
    status: (status: number) => `The server answered with an error (${status}).`,
    retry: 'Try again',
    crash: 'Something on this page went wrong. Your conversation is safe on the server.',
    reload: 'Reload the page',
  },

  sessions: {
    label: 'Conversations',
    fresh: 'New chat',
    search: 'Search conversations',
    none: 'Your conversations will be kept here.',
    noneFound: 'No conversation matches.',
    more: 'Show older',
    running: 'being answered',
    untitled: 'Untitled',
    rename: (title: string) => `Rename “${title}”`,
    renameLabel: 'Title',
    unrenamed: (title: string) => `“${title}” could not be stored as the title. Try again.`,
    dismiss: 'Dismiss',
    delete: (title: string) => `Delete “${title}”`,
    open: 'Show conversations',
    close: 'Hide conversations',
    failed: 'The list could not be read.',
  },

  deletion: {
    heading: 'Delete this conversation?',
    body: (title: string) => `“${title}” and everything kept about it will be erased. This cannot be undone.`,
    confirm: 'Delete',
    cancel: 'Keep it',
  },

  export: {
    button: 'Export as Markdown',
    you: 'Question',
    answer: 'Answer',
    sources: 'Sources',
    cancelled: 'This answer was stopped before its end.',
    error: 'This answer could not be finished.',
  },

  shortcuts: {
    button: 'Keyboard shortcuts',
    heading: 'Keyboard shortcuts',
    close: 'Close',
    keys: [
      { keys: ['Enter'], does: 'Send the question' },
      { keys: ['Shift', 'Enter'], does: 'Start a new line' },
      { keys: ['Esc'], does: 'Close a panel, or stop the answer' },
      { keys: ['/'], does: 'Go to the text field' },
      { keys: ['Up'], does: 'Edit the last question, when the text field is empty' },
      { keys: ['Alt', 'N'], does: 'New chat' },
      { keys: ['Alt', 'K'], does: 'Search conversations' },
      { keys: ['?'], does: 'Show this list' },
    ],
  },

  announce: {
    sent: 'Question sent',
    stage: (name: string) => (name === 'generation' ? 'Writing the answer' : (stages[name]?.active ?? spoken(name))),
    restarting: 'Starting this answer again',
    complete: (sources: number) => `Answer complete${sources > 0 ? `, ${plural(sources, 'source', 'sources')}` : ''}`,
    emergency: 'This may be an emergency. Get help now.',
    asked: 'Your answer is needed',
    stopped: 'Answer stopped',
    failed: (message: string) => `The answer was interrupted. ${message}`,
  },
} as const
