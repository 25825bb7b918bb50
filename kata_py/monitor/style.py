"""How the monitor's page looks, by day and by night: its style sheet."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6678; --line: #dfe4ec; --paper: #ffffff; --wash: #f5f7fa;
  --vm: #3567c4; --qemu: #17938a; --virtiofsd: #b0701a; --shim: #8a4fbf; --bad: #c0322b; --good: #1d7f45;
  --busy: #946200;
  --bar: #4a5b7c; --within: #93a4c3 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf1; --soft: #9aa6b8; --line: #2c3442; --paper: #161b23;
  --wash: #0f1319; --vm: #6f9cf0; --qemu: #40bdb2; --virtiofsd: #dba04c; --shim: #b98be6; --bad: #f0736b;
  --good: #58c583;
  --busy: #dcb14f; --bar: #8fa3c8; --within: #56678a } }
* { box-sizing: border-box }
body { margin: 0; background: var(--wash); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main, header, footer { max-width: 1100px; margin: 0 auto; padding: 0 24px }
header { padding-top: 28px } h1 { font-size: 24px; margin: 0 } h2 { font-size: 16px; margin: 0;
  overflow-wrap: anywhere }
.soft, footer { color: var(--soft) } code { font: 13px ui-monospace, monospace }
.sums { display: flex; flex-wrap: wrap; gap: 12px; list-style: none; margin: 18px 0; padding: 0 }
.sums li { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px;
  min-width: 130px }
.sums strong { display: block; font-size: 22px; line-height: 1.25; font-variant-numeric: tabular-nums }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100% } caption { text-align: left; padding: 12px 16px 4px;
  font-weight: 600 }
th, td { text-align: left; padding: 7px 16px; border-top: 1px solid var(--line); white-space: nowrap }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums } a { color: inherit }
.state { font-weight: 600 } .state::before { content: "● " } .running { color: var(--good) }
.creating, .stopping { color: var(--busy) } .lost { color: var(--bad) } .lost::before { content: "▲ " }
article { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 16px 0 }
article > header { padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: baseline }
.memory { display: flex; height: 10px; border-radius: 5px; overflow: hidden; margin: 12px 0 6px;
  background: var(--line) }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 10px; font-size: 13px }
.key div { display: flex; gap: 6px } .key dt::before { content: "■ " } .key dd { margin: 0; color: var(--soft) }
.part-VM { background: var(--vm) } .part-QEMU { background: var(--qemu) }
  .part-virtiofsd { background: var(--virtiofsd) }
.part-shim { background: var(--shim) } .key-VM::before { color: var(--vm) } .key-QEMU::before { color: var(--qemu) }
.key-virtiofsd::before { color: var(--virtiofsd) } .key-shim::before { color: var(--shim) }
.timeline { width: 100%; height: auto; display: block; font-size: 11px }
.timeline text { fill: var(--ink) } .timeline text.tick, .timeline .time { fill: var(--soft) }
.timeline line { stroke: var(--line) } .depth0 rect { fill: var(--bar) }
  .depth1 rect, .depth2 rect { fill: var(--within) }
 .stage.running rect { fill: none; stroke: var(--busy); stroke-dasharray: 4 2 }
.failed rect { fill: none; stroke: var(--bad); stroke-width: 3; stroke-dasharray: 2 2 }
  .timeline .failed .time { fill: var(--bad) }
.empty { padding: 40px 16px; text-align: center } footer { padding-top: 8px; padding-bottom: 32px; font-size: 13px }
"""
