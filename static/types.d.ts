// Types that several scripts use. Only `tsc` reads this file, in `make check`; browsers do not load it.

/** A token of the text, as in every reply: `tokens` in app/views.py. `start` and `end` count code points. */
export type Token = { position: number; id: number; text: string; bytes: string; start: number; end: number };

/** Where a trace of the server's figures gets its numbers and labels: FigureMeta in app/figures.py. */
export type FigureMeta = {
  z: string;
  customdata?: string;
  masked_from?: number | null;
  signed?: boolean;
  shade?: ["asinh" | "log10", number];
  x?: [first: number, last: number, step: number];
  y?: [first: number, last: number, step: number];
};

export type PlotlyTrace = { type?: string; meta?: FigureMeta; [attribute: string]: unknown };
export type PlotlyLayout = { title: { text: string }; height?: number; [attribute: string]: unknown };
export type PlotlyAxis = { fixedrange?: boolean; range?: [number, number] };

/** A figure. `name` is that of the downloaded file; without it, the title is used. */
export type PlotlyFigure = { data: PlotlyTrace[]; layout: PlotlyLayout; name?: string };

/** The point of a Plotly figure that is under the pointer or was clicked. */
export type PlotlyPoint = { x: string; y: string; pointIndex: [row: number, column: number]; customdata: [number, number] };
export type PlotlyEvents = {
  plotly_click: { points: [PlotlyPoint] };
  plotly_hover: { points: [PlotlyPoint] };
  plotly_doubleclick: undefined;
  plotly_relayout: Record<string, unknown>;
};

/** An element in which Plotly has drawn a figure. */
export type PlotlyElement = HTMLElement & {
  on<Name extends keyof PlotlyEvents>(event: Name, listener: (data: PlotlyEvents[Name]) => void): void;
  layout: { xaxis: { range: [number, number] }; yaxis: { range: [number, number] } };
};
export type PlotlyScript = {
  Icons: Record<"camera" | "home", object>;
  downloadImage(element: HTMLElement, options: { format: "svg"; filename: string; width: number; height: number }): Promise<string>;
  relayout(element: HTMLElement, change: object): Promise<PlotlyElement>;
  react(element: HTMLElement, data: PlotlyTrace[], layout: object, config: object): Promise<PlotlyElement>;
};

export type Prediction = {
  position: number;
  top: { id: number; text: string; bytes: string; logit: number; probability: number }[];
  entropy_bits: number;
  surprisal_bits: number | null;
};

/** An error of the server, after RFC 9457. */
export type Problem = { status: number; detail: string; doing?: string };

/** Which thumbnails a frame contains: app/live/delta.py. */
export type GridHeader = { layers: [begin: number, end: number]; pixel_size: number; from: number; n_sent: number };
export type Window = import("./address.js").Window;

/** The header of the first frame of a reply. The frames after it have only `grid`, `done` and `timings`. */
export type FirstHeader = {
  model: string;
  step: number | null;
  device: string;
  dtype: string;
  n_tokens: number;
  n_shared: number;
  tokens: Token[];
  dropped: { start: number; end: number; text: string }[];
  layer: number;
  head: number;
  stage: string;
  query: number;
  prediction: Prediction;
  heatmap: { window: Window; cell_size: number; from: number } | null;
  figure: PlotlyFigure;
  norms?: { from: number; figure: PlotlyFigure };
  grid?: GridHeader;
  done: boolean;
  timings: { computed_ms: number };
};
export type FrameHeader = FirstHeader | Pick<FirstHeader, "grid" | "done" | "timings">;

/** The header of any message of the live channel: a frame, the progress of a reading, an error, or a pong. */
export type LiveHeader = FrameHeader & {
  seq?: number;
  pong?: number;
  progress?: { n_read: number; n_tokens: number };
  problem?: Problem;
  retry_after_s?: number | null;
};

// The panels of a lesson: app/lessons/panels.py.

type PanelOf<Kind extends string, Fields> = { kind: Kind; title: string } & Fields;
export type Value = number | null;
export type Point = { name: string; group: string; x: number; y: number; selects: Record<string, number> };
export type Chip = { text: string; about: string; faded: boolean };
export type PanelKinds = {
  heatmap: PanelOf<"heatmap", {
    rows: string[];
    columns: string[];
    values: Value[][];
    scale: "probability" | "signed";
    limit: number;
    selects: [row: string, column: string] | null;
  }>;
  bars: PanelOf<"bars", { labels: string[]; values: Value[]; chosen: number | null; probabilities: boolean; selects: string }>;
  curves: PanelOf<"curves", {
    x_axis: string;
    lines: { name: string; x: number[]; y: Value[] }[];
    log: boolean;
    marker: number | null;
  }>;
  facts: PanelOf<"facts", { names: string[]; values: (Value | string)[] }>;
  points: PanelOf<"points", {
    x_axis: string;
    y_axis: string;
    points: Point[];
    arrows: boolean;
    limit: number | null;
    draggable: string[];
  }>;
  chips: PanelOf<"chips", { rows: { name: string; chips: Chip[] }[] }>;
  cube: PanelOf<"cube", { sheets: string[]; rows: string[][]; columns: string[]; values: Value[][][] }>;
};
export type Panel = PanelKinds[keyof PanelKinds];

/** Colours of lines and bars, and of axes. */
export type Palette = { colours: string[]; ink: string };

/** A line of the stream of an experiment: app/routes/experiments.py. */
export type ExperimentLine = {
  model?: string;
  tokens?: Token[];
  name?: string;
  panel?: Panel;
  table?: string;
  progress?: { n_read?: number; n_tokens?: number; done?: number; total?: number };
  problem?: Problem;
  retry_after_s?: number | null;
};

/** The elements of the templates whose type is not simply HTMLElement, by id. */
export interface ElementsById {
  broken: HTMLInputElement;
  edits: HTMLInputElement;
  experiment: HTMLFormElement;
  grid: HTMLCanvasElement;
  head: HTMLInputElement;
  layer: HTMLInputElement;
  model: HTMLSelectElement;
  progress: HTMLProgressElement;
  stage: HTMLInputElement;
  text: HTMLTextAreaElement;
  "text-form": HTMLFormElement;
}
export type Find = <Id extends string>(id: Id) => Id extends keyof ElementsById ? ElementsById[Id] : HTMLElement;

declare global {
  interface Window {
    Plotly?: PlotlyScript;
    SwaggerUIBundle(options: object): void;
  }
  interface Document {
    getElementById<Id extends string>(id: Id): Id extends keyof ElementsById ? ElementsById[Id] : HTMLElement;
  }
}
